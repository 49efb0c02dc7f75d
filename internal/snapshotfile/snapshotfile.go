// Package snapshotfile keeps snapshots of the catalog in files: it saves one durably and verified, tells what is in one, and
// checks one before it is restored.
//
// It knows no node: who saves and restores gives it a function that streams (package client). The command line calls it.
package snapshotfile

import (
	"errors"
	"io"
	"os"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Stdout is the name that stands for standard output.
const Stdout = "-"

// Report is what is known of a snapshot. Counts of a damaged one end where the damage begins.
type Report struct {
	Complete    bool   `json:"complete"`
	Damage      string `json:"damage,omitempty"` // why it is not complete
	Version     uint32 `json:"version"`
	ClusterID   string `json:"clusterId"`
	Index       uint64 `json:"index"`
	CommandHash string `json:"commandHash"`
	Bytes       int64  `json:"bytes"`
	Records     struct {
		Tags      int `json:"tags"`
		Manifests int `json:"manifests"`
		Referrers int `json:"referrersLists"`
		Absences  int `json:"absences"`
		Links     int `json:"links"`
		Blobs     int `json:"blobs"`
	} `json:"records"`
}

// Save writes to the file at path (or to stdout, when path is Stdout) what save streams, verifies it on the way, and returns
// what it is. A file is replaced only by a complete snapshot, and is durable then. progress is called with the number of
// bytes written so far.
func Save(path string, stdout io.Writer, save func(io.Writer) error, progress func(int64)) (Report, error) {
	var report Report
	var failure error // of saving, not of the disk: it says what to do next
	write := func(w io.Writer) error {
		report, failure = verified(&progressWriter{to: w, told: progress}, save)
		return failure
	}
	if path == Stdout {
		err := write(stdout)
		return report, err
	}
	if err := durable.WriteFrom(path, 0o600, write); err != nil && failure == nil {
		return report, err
	}
	return report, failure
}

// verified reads along while save writes.
func verified(to io.Writer, save func(io.Writer) error) (Report, error) {
	reading, copied := io.Pipe()
	type inspected struct {
		info fsm.SnapshotInfo
		err  error
	}
	result := make(chan inspected, 1)
	go func() {
		info, err := fsm.InspectSnapshot(reading)
		reading.CloseWithError(err) // whoever still writes must not wait
		result <- inspected{info, err}
	}()
	failure := save(io.MultiWriter(to, copied))
	copied.CloseWithError(nil) // the end of what there is to inspect
	found := <-result
	if failure == nil {
		failure = found.err
	}
	return reportOf(found.info, found.err), failure
}

// Inspect reads a file and returns what it is. Damage is in the report and the error, of reason SNAPSHOT_INVALID.
func Inspect(path string) (Report, error) {
	file, err := Open(path)
	if err != nil {
		return Report{}, err
	}
	defer file.Close()
	info, damage := fsm.InspectSnapshot(file)
	if damage == nil {
		return reportOf(info, nil), nil
	}
	return reportOf(info, damage), errdef.Wrap(errdef.ReasonOf(damage), damage, "%s is no complete snapshot", path).
		WithRemedy("save it again, or take an older file")
}

// Open opens a file to restore.
func Open(path string) (io.ReadCloser, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errdef.Wrap(errdef.NotFound, err, "no snapshot").WithRemedy("check the name of the file")
	}
	if err != nil {
		return nil, durable.Wrap(err, "cannot read the snapshot")
	}
	return file, nil
}

func reportOf(info fsm.SnapshotInfo, damage error) Report {
	header, records := info.Header, info.Records
	r := Report{
		Complete: damage == nil, Version: info.Version, ClusterID: header.ClusterID, Index: uint64(header.Index),
		CommandHash: hexOf(header.CommandHash), Bytes: info.Bytes,
	}
	if damage != nil {
		r.Damage = damage.Error()
	}
	r.Records.Tags, r.Records.Manifests, r.Records.Referrers = records.Tags, records.Manifests, records.Referrers
	r.Records.Absences, r.Records.Links, r.Records.Blobs = records.Absences, records.Links, records.Blobs
	return r
}
