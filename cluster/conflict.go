package cluster

import (
	"cmp"
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
//
// A log that ends before the snapshot is discarded at once, by the same rule: nobody has compared it with what the snapshot
// stands for. raft keeps it, and would send it, as a leader, to a node that is as far behind; which could commit it.

// discard empties a log that conflicts with the newest snapshot, and the part of it which that stands for when it is not known
// to be right. Raft must not run yet.
func discard(logs raft.LogStore, snapshots raft.SnapshotStore) error {
	found, err := snapshots.List()
	if err != nil {
		return durable.Wrap(err, "cannot list the snapshots")
	}
	if len(found) == 0 {
		return nil
	}
	end := position{found[0].Index, found[0].Term}
	switch kept, err := compare(logs, end); {
	case err != nil:
		return err
	case kept == missing:
		return discardTo(logs, end.index)
	case kept == other:
		last, err := logs.LastIndex()
		if err != nil {
			return durable.Wrap(err, "cannot read the raft log")
		}
		return discardTo(logs, last)
	}
	return nil
}

// discardTo discards the beginning of a log, up to an index.
func discardTo(logs raft.LogStore, last uint64) error {
	first, err := logs.FirstIndex()
	if err != nil {
		return durable.Wrap(err, "cannot read the raft log")
	}
	if first == 0 || first > last {
		return nil
	}
	if err := logs.DeleteRange(first, last); err != nil {
		return durable.Wrap(err, "cannot discard the raft log")
	}
	return nil
}

// comparison is what a log has at a position.
type comparison int

const (
	same    comparison = iota // an entry of that term
	other                     // of another term
	missing                   // none
)

func compare(logs raft.LogStore, at position) (comparison, error) {
	var entry raft.Log
	err := logs.GetLog(at.index, &entry)
	switch {
	case errors.Is(err, raft.ErrLogNotFound):
		return missing, nil
	case err != nil:
		return missing, durable.Wrap(err, "cannot read the raft log")
	case entry.Term != at.term:
		return other, nil
	}
	return same, nil
}

// checkedSnapshots ends the node when it has received a snapshot with which its log conflicts. A snapshot that finds the disk
// full is lost; the next one has the reserve, without which a log would grow for ever, and a node that is far behind stay so.
type checkedSnapshots struct {
	raft.SnapshotStore
	logs   raft.LogStore
	disk   diskWatch
	turn   *turn
	newest *atomic.Pointer[position] // the end of the newest one
}

func newCheckedSnapshots(store raft.SnapshotStore, logs raft.LogStore, disk diskWatch) (checkedSnapshots, error) {
	s := checkedSnapshots{SnapshotStore: store, logs: logs, disk: disk, turn: newTurn(), newest: &atomic.Pointer[position]{}}
	found, err := s.List()
	if err != nil {
		return s, durable.Wrap(err, "cannot list the snapshots")
	}
	if len(found) > 0 {
		s.made(position{found[0].Index, found[0].Term})
	}
	return s, nil
}

// made notes a snapshot, unless a restart would begin with the one before: that which ends with the later entry, by term and
// index. One snapshot is made at a time (see turn).
func (s checkedSnapshots) made(end position) {
	newest := s.end()
	if cmp.Or(cmp.Compare(newest.term, end.term), cmp.Compare(newest.index, end.index)) <= 0 {
		s.newest.Store(&end)
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

// Write implements io.Writer. It fails for a snapshot of this node's own once another one waits for it (see turn).
func (s checkedSink) Write(p []byte) (int, error) {
	if err := s.store.turn.giveWay(); err != nil {
		return 0, err
	}
	n, err := s.SnapshotSink.Write(p)
	s.store.disk.reserve.spend(err)
	return n, err
}

// Close makes the snapshot durable first: without it nothing of the log must be discarded. When the log conflicts, it fails, so that
// raft takes nothing that follows the snapshot: all of the log goes at the next start.
func (s checkedSink) Close() error {
	if err := s.SnapshotSink.Close(); err != nil {
		s.store.disk.reserve.spend(err)
		return err
	}
	end := position{s.index, s.term}
	s.store.made(end)
	kept, err := compare(s.store.logs, end)
	switch {
	case err != nil:
	case kept == other:
		err = errdef.New(errdef.LogConflict, "the log of this node conflicts with the snapshot at index %d, term %d", s.index, s.term).
			WithRemedy("start the node again: it then discards its log and goes on from the snapshot")
	case kept == missing && s.store.turn.is(sent): // a leader that restores one needs its log until it has
		err = discardTo(s.store.logs, s.index)
	}
	if err != nil {
		s.store.disk.fatal(err)
	}
	return err
}
