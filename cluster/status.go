package cluster

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Status is Raft as this node sees it.
type Status struct {
	Term   uint64
	Leader catalog.NodeID // empty when none is known
	// CommitIndex and AppliedIndex count all entries; the catalog's own index skips those that carry no command.
	CommitIndex, AppliedIndex, LastIndex catalog.LogIndex
	// FeatureLevel is that of the cluster, as far as this node has applied it; Supported is what this build could do.
	FeatureLevel, Supported catalog.FeatureLevel
}

// Status returns the current state of Raft.
func (c *Cluster) Status() Status {
	_, leader := c.raft.LeaderWithID()
	return Status{
		Term: c.raft.CurrentTerm(), Leader: catalog.NodeID(leader), CommitIndex: catalog.LogIndex(c.raft.CommitIndex()),
		AppliedIndex: catalog.LogIndex(c.raft.AppliedIndex()), LastIndex: catalog.LogIndex(c.raft.LastIndex()),
		FeatureLevel: c.catalog.Snapshot().FeatureLevel(), Supported: fsm.MaxLevel,
	}
}

// ContactAge returns how long ago this node last heard from a leader; very long when it never did. A leader hears from
// itself, and may be wrong about that for as long as its lease.
func (c *Cluster) ContactAge() time.Duration {
	if c.raft.State() == raft.Leader {
		return c.config.Timings.Lease
	}
	last := c.raft.LastContact()
	if last.IsZero() {
		return math.MaxInt64
	}
	return time.Since(last)
}

// State tells other nodes how far this one has come.
func (c *Cluster) State() NodeState {
	now, last, term := c.identity.current(), catalog.LogIndex(c.raft.LastIndex()), c.raft.CurrentTerm()
	return NodeState{
		ID: now.ID, ClusterID: now.told(), Empty: last == 0 && term == 0, Term: term,
		Applied: c.catalog.Snapshot().Index(), Last: last, FeatureLevel: c.offered(), Retired: now.Retired != nil,
	}
}

// Ready returns nil once this node has, since it started, applied all that its cluster had committed. Before, it
// returns an error of reason NOT_READY that says what it waits for, or of CLUSTER_MISMATCH. It fails with REMOVED or
// DIVERGED for a node whose id was retired, and with DIVERGED while the voters hold different commands and no majority of
// them agrees.
func (c *Cluster) Ready() error {
	if err := c.identity.retired(); err != nil {
		return err
	}
	if last, known := c.Compared(); known && last.Disputed {
		return errdef.New(errdef.Diverged, "the voters hold different commands, and no majority of them agrees: at index %d "+
			"%d of %d have this node's", last.Index, last.Equal, last.Voters).
			WithRemedy("bring the other voters back; should that not settle it, compare: ocistern status --all --catalog-digest")
	}
	if c.identity.current().Restoring {
		return errdef.New(errdef.NotReady, "a snapshot is being restored")
	}
	if c.progress.ready.Load() {
		return nil
	}
	if err := c.gossip.mismatch(); err != nil {
		return err
	}
	return errdef.New(errdef.NotReady, "%s", *c.progress.waiting.Load())
}

// await says, for people, what this node waits for.
func (c *Cluster) await(text string) {
	if last := c.progress.waiting.Swap(&text); last == nil || *last != text {
		c.logger.Info("not ready", "waiting", text)
	}
}

// catchUp looks whether this node may be called ready.
func (c *Cluster) catchUp(ctx context.Context) {
	if c.progress.ready.Load() || c.ClusterID() == "" {
		return
	}
	c.await("catching up with cluster " + c.ClusterID())
	target, err := c.goal(ctx)
	if err != nil {
		c.logger.Debug("not caught up yet", "error", err)
		return
	}
	snapshot, err := c.applied(ctx, target)
	if err != nil || snapshot.ClusterID() == "" { // without a name, the first command is still to come
		c.logger.Debug("not caught up yet", "goal", target, "error", err)
		return
	}
	c.progress.ready.Store(true)
	c.logger.Info("ready", "cluster", c.ClusterID(), "index", target)
}

// goal returns an index at or after everything that was committed when it was called. On the leader that takes an entry
// of its own term; the log of another leader holds all that is committed.
func (c *Cluster) goal(ctx context.Context) (catalog.LogIndex, error) {
	leader, ok := c.Leader()
	if !ok {
		return 0, errdef.New(errdef.NotReady, "no leader is known")
	}
	if leader.ID != c.Self() {
		state, err := c.peers.State(ctx, leader.Addresses.Peer)
		return state.Last, err
	}
	if err := c.settle(ctx, c.raft.Barrier(c.config.Timings.Call)); err != nil {
		return 0, err
	}
	return catalog.LogIndex(c.raft.AppliedIndex()), c.nameCluster(ctx)
}

// applied returns the catalog once all entries up to index are in it, or fails with reason NOT_READY, DEADLINE or
// CANCELED. Raft's own applied index is not enough: it counts what was handed to the state machine.
func (c *Cluster) applied(ctx context.Context, index catalog.LogIndex) (*catalog.Snapshot, error) {
	if have := c.raft.AppliedIndex(); have < uint64(index) {
		return nil, errdef.New(errdef.NotReady, "entry %d of %d is applied", have, index)
	}
	last, err := c.lastCommand(index)
	if err != nil {
		return nil, err
	}
	return c.catalog.Wait(ctx, last)
}

// lastCommand returns the catalog index of a node that has applied all entries up to index: only commands and
// configurations reach the state machine.
func (c *Cluster) lastCommand(index catalog.LogIndex) (catalog.LogIndex, error) {
	for at := index; at > c.catalog.Snapshot().Index(); at-- {
		var entry raft.Log
		err := c.storage.logs.GetLog(uint64(at), &entry)
		if errors.Is(err, raft.ErrLogNotFound) {
			if newest := c.storage.newest(); newest.index > c.raft.AppliedIndex() { // it is just being restored
				return 0, errdef.New(errdef.NotReady, "the snapshot at index %d is restored", newest.index)
			}
			break // cut off after a snapshot: the catalog was restored from there, or had it applied before
		}
		if err != nil {
			return 0, errdef.Wrap(errdef.StorageFailed, err, "entry %d cannot be read", at)
		}
		if entry.Type == raft.LogCommand || entry.Type == raft.LogConfiguration {
			return at, nil
		}
	}
	return c.catalog.Snapshot().Index(), nil
}

// settle waits for a future of Raft, which by itself might never end when Raft shuts down.
func (c *Cluster) settle(ctx context.Context, future raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case err := <-done:
		if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			c.transfers.refused.Store(true)
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-c.lifetime.Done():
		return raft.ErrRaftShutdown
	}
}

// bounded makes one call that this package makes for itself.
func (c *Cluster) bounded(call func(context.Context) error) error {
	ctx, cancel := c.callContext()
	defer cancel()
	return call(ctx)
}

// callContext bounds one call that this package makes for itself.
func (c *Cluster) callContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.lifetime, c.config.Timings.Call)
}
