package cluster

import (
	"errors"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// A log conflicts with a snapshot when its entry at the snapshot's index is of another term: it holds what was never
// committed, and all of it must be discarded (Raft, figure 13, rule 7 of InstallSnapshot). raft does not, refuses what
// follows the snapshot, and is sent the snapshot again, for ever (hashicorp/raft issue 697). It keeps the end of its log in
// memory, so that the log can only be discarded while it does not run: a node that receives such a snapshot ends, and
// discards its log at the next start.

// discardConflict empties a log that conflicts with the newest snapshot. Raft must not run yet.
func discardConflict(logs raft.LogStore, snapshots raft.SnapshotStore) error {
	found, err := snapshots.List()
	if err != nil {
		return durable.Wrap(err, "cannot list the snapshots")
	}
	if len(found) == 0 {
		return nil
	}
	conflict, err := conflicts(logs, found[0].Index, found[0].Term)
	if err != nil || !conflict {
		return err
	}
	first, err := logs.FirstIndex()
	if err != nil {
		return durable.Wrap(err, "cannot read the raft log")
	}
	last, err := logs.LastIndex()
	if err != nil {
		return durable.Wrap(err, "cannot read the raft log")
	}
	if err := logs.DeleteRange(first, last); err != nil {
		return durable.Wrap(err, "cannot discard the raft log")
	}
	return nil
}

func conflicts(logs raft.LogStore, index, term uint64) (bool, error) {
	var entry raft.Log
	err := logs.GetLog(index, &entry)
	if errors.Is(err, raft.ErrLogNotFound) {
		return false, nil
	}
	if err != nil {
		return false, durable.Wrap(err, "cannot read the raft log")
	}
	return entry.Term != term, nil
}

// checkedSnapshots ends the node when it has received a snapshot with which its log conflicts. A snapshot that finds the disk
// full is lost; the next one has the reserve, without which a log would grow for ever, and a node that is far behind stay so.
type checkedSnapshots struct {
	raft.SnapshotStore
	logs   raft.LogStore
	disk   diskWatch
	newest *atomic.Pointer[position] // the end of the newest one
}

func newCheckedSnapshots(store raft.SnapshotStore, logs raft.LogStore, disk diskWatch) (checkedSnapshots, error) {
	s := checkedSnapshots{SnapshotStore: store, logs: logs, disk: disk, newest: &atomic.Pointer[position]{}}
	found, err := s.List()
	if err != nil {
		return s, durable.Wrap(err, "cannot list the snapshots")
	}
	for _, newest := range found {
		s.made(position{newest.Index, newest.Term})
	}
	return s, nil
}

// made notes a snapshot. One that was begun earlier may be ready later.
func (s checkedSnapshots) made(end position) {
	for {
		newest := s.newest.Load()
		if newest != nil && newest.index >= end.index || s.newest.CompareAndSwap(newest, &end) {
			return
		}
	}
}

// end returns where the newest snapshot ends; zero when there is none.
func (s checkedSnapshots) end() position {
	if newest := s.newest.Load(); newest != nil {
		return *newest
	}
	return position{}
}

// List implements raft.SnapshotStore. It tells of the newest snapshot only: should raft not be able to restore it, it would
// take the one before, and go on from behind what this node has acknowledged.
func (s checkedSnapshots) List() ([]*raft.SnapshotMeta, error) {
	listed, err := s.SnapshotStore.List()
	return listed[:min(1, len(listed))], err
}

// Create implements raft.SnapshotStore, for snapshots taken here and for those received.
func (s checkedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil {
		s.disk.reserve.spend(err)
		return nil, err
	}
	return checkedSink{SnapshotSink: sink, store: s, index: index, term: term}, nil
}

type checkedSink struct {
	raft.SnapshotSink
	store       checkedSnapshots
	index, term uint64
}

// Write implements io.Writer.
func (s checkedSink) Write(p []byte) (int, error) {
	n, err := s.SnapshotSink.Write(p)
	s.store.disk.reserve.spend(err)
	return n, err
}

// Close makes the snapshot durable first: without it the log must not be discarded. When the log conflicts, it fails, so that raft
// takes nothing that follows the snapshot: all of the log goes at the next start.
func (s checkedSink) Close() error {
	if err := s.SnapshotSink.Close(); err != nil {
		s.store.disk.reserve.spend(err)
		return err
	}
	s.store.made(position{s.index, s.term})
	conflict, err := conflicts(s.store.logs, s.index, s.term)
	if conflict {
		err = errdef.New(errdef.LogConflict, "the log of this node conflicts with the snapshot at index %d, term %d", s.index, s.term).
			WithRemedy("start the node again: it then discards its log and goes on from the snapshot")
	}
	if err != nil {
		s.store.disk.fatal(err)
	}
	return err
}
