package cluster

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Restored tells what a restore did.
type Restored struct {
	Before, Index catalog.LogIndex // of this cluster's catalog
	Snapshot      catalog.Header   // as it was in the file
}

// SaveSnapshot writes a snapshot of the catalog (fsm.WriteSnapshot). It holds every write acknowledged before the call, or
// fails as ReadIndex does. When local is true it is the catalog as this node has it, for want of a quorum.
func (c *Cluster) SaveSnapshot(ctx context.Context, to io.Writer, local bool) error {
	index := catalog.LogIndex(0)
	if !local {
		var err error
		if index, err = c.ReadIndex(ctx); err != nil {
			return err
		}
	}
	snapshot, err := c.catalog.Wait(ctx, index)
	if err != nil {
		return err
	}
	if snapshot.ClusterID() == "" {
		return errdef.New(errdef.NotReady, "the catalog of this node is empty").WithRemedy("ask another node")
	}
	return fsm.WriteSnapshot(to, snapshot)
}

// RestoreLocal replaces the catalog of the whole cluster by a snapshot (fsm.WriteSnapshot), on the leader. All of it is
// verified, and waits on this node's disk, before anything changes. Holders that are not members now are dropped. The
// catalog's index goes on from the present one, or from the snapshot's where that is higher: it never goes back.
//
// Should this node fail before the others have the snapshot, its vote is lost (see interrupted). So it is refused with reason
// DEGRADED where a voter is missing and the others that are alive are no quorum, unless force is true.
//
// It fails with reason NOT_LEADER elsewhere; SNAPSHOT_INVALID; CLUSTER_MISMATCH for the snapshot of another cluster, unless
// force is true; VERSION_TOO_OLD for one of a higher feature level; OVERLOADED while another restore or a change of
// members is under way. In all these cases nothing was changed. OUTCOME_UNKNOWN: the cluster has the old catalog or the new
// one, and will agree on which.
func (c *Cluster) RestoreLocal(ctx context.Context, from io.Reader, force bool) (Restored, error) {
	if c.raft.State() != raft.Leader || !c.progress.ready.Load() {
		return Restored{}, errdef.New(errdef.NotLeader, "node %s does not lead", c.Self())
	}
	moved, err := fsm.NewTransplant(from)
	if err != nil {
		return Restored{}, err
	}
	done := Restored{Before: c.catalog.Snapshot().Index(), Snapshot: moved.Header()}
	if theirs := moved.Header().ClusterID; theirs != c.ClusterID() && !force {
		return done, errdef.New(errdef.ClusterMismatch, "this is a snapshot of cluster %q, not of %s", theirs, c.ClusterID()).
			WithRemedy("add --force to take it nevertheless")
	}
	spool, err := c.openSpool()
	if err != nil {
		return done, err
	}
	defer spool.Close() // it has no name any more: closing it frees it
	if err := moved.Spool(spool, c.memberSet()); err != nil {
		return done, errdef.Wrap(errdef.ReasonOf(err), err, "nothing was changed")
	}
	if err := c.dispensable(); err != nil && !force {
		return done, err
	}
	if err := ctx.Err(); err != nil {
		return done, errdef.Wrap(errdef.ReasonOf(err), err, "nothing was changed")
	}
	done.Index, err = c.install(ctx, moved)
	return done, err
}

// dispensable fails when voters are missing and this node's vote is needed.
func (c *Cluster) dispensable() error {
	voters, others := 0, 0
	for _, m := range c.Members() {
		if m.Role == RoleVoter {
			voters++
			if m.ID != c.Self() && m.State == StateAlive {
				others++
			}
		}
	}
	if !costsQuorum(voters, others) {
		return nil
	}
	return errdef.New(errdef.Degraded, "only %d of the %d other voters are alive: should node %s fail before they have the snapshot, "+
		"the quorum is lost; nothing was changed", others, voters-1, c.Self()).
		WithRemedy("bring the others back first, or add --force")
}

// costsQuorum tells whether the loss of one voter's vote, with so many others alive, costs a quorum that it would not cost once
// the others are back. With all of two voters alive, nobody could do better by waiting.
func costsQuorum(voters, others int) bool { return others < voters-1 && others <= voters/2 }

// openSpool returns a file without a name: a crash leaves nothing behind.
func (c *Cluster) openSpool() (*os.File, error) {
	spool, err := os.CreateTemp(c.config.DataDir, ".restore-*")
	if err != nil {
		return nil, durable.Wrap(err, "cannot spool the snapshot")
	}
	if err := os.Remove(spool.Name()); err != nil {
		return nil, errors.Join(durable.Wrap(err, "cannot spool the snapshot"), spool.Close())
	}
	return spool, nil
}

// memberSet tells which nodes are members now.
func (c *Cluster) memberSet() func(catalog.NodeID) bool {
	members := map[catalog.NodeID]bool{}
	for _, server := range c.servers() {
		members[catalog.NodeID(server.ID)] = true
	}
	return func(id catalog.NodeID) bool { return members[id] }
}

// install makes a spooled snapshot the state of the cluster. raft burns one index for it, the one after the last; nobody
// appends while it reads the snapshot, so that the header can say which one it is. The feature level must not rise
// meanwhile, since the snapshot would take it back.
func (c *Cluster) install(ctx context.Context, moved *fsm.Transplant) (catalog.LogIndex, error) {
	c.raising.Lock()
	defer c.raising.Unlock()
	if err := c.settle(ctx, c.raft.Barrier(c.config.Timings.Call)); err != nil {
		return 0, errdef.Wrap(errdef.NotLeader, err, "nothing was changed")
	}
	if !c.storage.turn.await(restored, ctx.Done()) {
		return 0, errdef.Wrap(errdef.ReasonOf(ctx.Err()), ctx.Err(), "nothing was changed: another snapshot is being made")
	}
	defer c.storage.turn.end()
	if err := moved.Into(c.catalog.Snapshot().Header()); err != nil {
		return 0, err
	}
	meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: uint64(moved.Header().Index)}
	burned := func() catalog.LogIndex { return max(catalog.LogIndex(c.raft.LastIndex()), moved.Header().Index) + 1 }
	size, err := moved.Size(c.ClusterID(), burned())
	if err != nil {
		return 0, err
	}
	meta.Size = size
	var at atomic.Uint64 // not 0 once raft reads
	from := moved.Reader(c.ClusterID(), func() (catalog.LogIndex, error) {
		index := burned()
		at.Store(uint64(index))
		if now, err := moved.Size(c.ClusterID(), index); err != nil || now != size {
			return 0, errdef.New(errdef.Overloaded, "the log has grown too much meanwhile").WithRemedy("try again")
		}
		return index, nil
	})
	// Once raft has it all and the others have not, this node must not go on as their follower: see interrupted.
	last := &lastPart{from: from, left: size, pass: func() error {
		return c.identity.change(func(r *record) { r.Restoring = true })
	}, done: make(chan struct{})}
	c.restore.Store(last)
	defer close(last.done)
	if c.closing.begun.Load() { // Shutdown may have looked before
		last.stop()
	}
	// Whoever asked may go away: from here on it is raft that bounds the time, by losing the leadership.
	err = c.settle(context.WithoutCancel(ctx), restoreFuture(func() error { return c.raft.Restore(meta, last, 0) }))
	passed := last.stop()
	if err == nil {
		if failed := c.identity.change(func(r *record) { r.Restoring = false }); failed != nil {
			c.config.Fatal(failed)
		}
	}
	switch {
	case err == nil:
		c.logger.Info("catalog restored from a snapshot", "index", at.Load(), "snapshot", moved.Header().Index,
			"cluster", moved.Header().ClusterID)
		return catalog.LogIndex(at.Load()), nil
	case passed:
		err := errdef.Wrap(errdef.OutcomeUnknown, err, "the snapshot may or may not be restored")
		c.config.Fatal(err)
		return 0, err
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrRaftShutdown):
		return 0, errdef.Wrap(errdef.NotLeader, err, "nothing was changed")
	default: // raft changes nothing before it has all of the snapshot
		return 0, errdef.Wrap(errdef.Overloaded, err, "the snapshot could not be restored now; nothing was changed").
			WithRemedy("try again")
	}
}

// restoreFuture is a call of raft that takes its time.
type restoreFuture func() error

// Error implements raft.Future.
func (f restoreFuture) Error() error { return f() }

// lastPart reads what raft restores. Before the last part of it is given away, without which raft changes nothing, pass must
// succeed: there is a moment from which on the restore counts, and it is on the disk.
type lastPart struct {
	from io.Reader
	left int64 // bytes; of the one who reads
	pass func() error
	done chan struct{} // closed when the restore has ended

	mutex           sync.Mutex // guards what follows
	passed, stopped bool
}

// Read implements io.Reader.
func (l *lastPart) Read(p []byte) (int, error) {
	n, err := l.from.Read(p)
	if l.left -= int64(n); l.left > 0 {
		return n, err
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.stopped {
		return 0, errdef.New(errdef.NotReady, "the restore was given up")
	}
	if !l.passed {
		if failed := l.pass(); failed != nil {
			return 0, failed
		}
		l.passed = true
	}
	return n, err
}

// stop gives the restore up, or returns true when it is too late for that.
func (l *lastPart) stop() bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.stopped = !l.passed
	return l.passed
}

// awaitRestore waits until a restore that counts has ended, so that a node that is stopped keeps its vote. One that does not
// count yet is given up, as are those to come.
func (c *Cluster) awaitRestore(ctx context.Context) {
	c.closing.begun.Store(true)
	last := c.restore.Load()
	if last == nil || !last.stop() {
		return
	}
	select {
	case <-last.done:
	case <-ctx.Done():
	}
}
