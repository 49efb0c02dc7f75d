package fsm

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	logv1 "github.com/ocistern/ocistern/internal/proto/ocistern/log/v1"
)

// maxRecordBytes bounds one message of a snapshot. A record stems from one command; a tag's history and the holders of a
// blob come on top.
const maxRecordBytes = MaxCommandBytes + 1<<20

// persister writes one captured snapshot of the catalog, while the FSM goes on.
type persister struct {
	snapshot *catalog.Snapshot
	hurry    <-chan struct{} // nil for without breaks
}

// Persist implements raft.FSMSnapshot.
func (p persister) Persist(sink raft.SnapshotSink) error {
	to := io.Writer(sink)
	if p.hurry != nil {
		to = &considerate{to: sink, since: time.Now(), hurry: p.hurry}
	}
	if err := WriteSnapshot(to, p.snapshot); err != nil {
		if cancelErr := sink.Cancel(); cancelErr != nil {
			return errdef.Wrap(errdef.Internal, err, "snapshot is left behind: %v", cancelErr)
		}
		return err
	}
	if err := sink.Close(); err != nil {
		return errdef.Wrap(errdef.Internal, err, "snapshot cannot be closed")
	}
	return nil
}

// Release implements raft.FSMSnapshot. The garbage collector takes the tree.
func (p persister) Release() {}

// WriteSnapshot streams a snapshot in the format of snapshot.proto: the header, the records in canonical order, and a
// trailer with their number and a SHA-256 of all bytes before it. Equal catalogs of equal history give equal bytes.
func WriteSnapshot(w io.Writer, snapshot *catalog.Snapshot) error {
	buffered := bufio.NewWriterSize(w, 64<<10)
	frames := &frameWriter{to: buffered, sum: sha256.New()}
	if err := frames.write(headerMessage(snapshot.Header())); err != nil {
		return err
	}
	records := uint64(0)
	for record := range snapshot.Records() {
		message, err := encodeRecord(record)
		if err != nil {
			return err
		}
		if err := frames.write(message); err != nil {
			return err
		}
		records++
	}
	if err := frames.write(trailerMessage(records, frames.sum.Sum(nil))); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return errdef.Wrap(errdef.ReasonOf(err), err, "snapshot cannot be written")
	}
	return nil
}

// headerMessage writes the format of the cluster's feature level: a snapshot must not be news to a node that the level has
// let in.
func headerMessage(h catalog.Header) *logv1.SnapshotHeader {
	message := &logv1.SnapshotHeader{
		Version: uint32(catalog.LevelFirst), ClusterId: h.ClusterID, Index: uint64(h.Index), CommandHash: h.CommandHash[:],
	}
	if h.Level >= catalog.LevelRequests {
		message.Version = uint32(catalog.LevelRequests)
		message.FeatureLevel, message.Forgotten = uint32(h.Level), uint64(h.Forgotten)
		message.FormerClusterIds = h.Formers
	}
	return message
}

func trailerMessage(records uint64, checksum []byte) *logv1.SnapshotRecord {
	trailer := &logv1.SnapshotTrailer{Records: records, Checksum: checksum}
	return &logv1.SnapshotRecord{Kind: &logv1.SnapshotRecord_Trailer{Trailer: trailer}}
}

// frameWriter writes length-delimited messages and hashes them.
type frameWriter struct {
	to     io.Writer
	sum    hash.Hash
	buffer []byte
}

func (f *frameWriter) write(message proto.Message) error {
	options := proto.MarshalOptions{Deterministic: true}
	size := options.Size(message)
	if size > maxRecordBytes {
		return errdef.New(errdef.Internal, "snapshot record has %d bytes, at most %d can be read", size, maxRecordBytes)
	}
	frame, err := options.MarshalAppend(binary.AppendUvarint(f.buffer[:0], uint64(size)), message)
	if err != nil {
		return errdef.Wrap(errdef.Internal, err, "snapshot record cannot be encoded")
	}
	f.buffer = frame
	f.sum.Write(frame)
	if _, err := f.to.Write(frame); err != nil {
		return errdef.Wrap(errdef.ReasonOf(err), err, "snapshot cannot be written")
	}
	return nil
}
