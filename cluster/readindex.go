package cluster

import (
	"context"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// reading is how the readers of a node share work.
type reading struct {
	proofs *rounds          // that this node leads
	asks   *rounds          // of the leader, while this node does not lead
	quick  []catalog.NodeID // voters that answered the last proof; only the goroutine of proofs looks at it
	// settled is a term of which this node knows an entry to be committed. It counts only while this node leads in it.
	settled atomic.Uint64
}

func newReading() *reading { return &reading{proofs: newRounds(), asks: newRounds()} }

// ReadIndex returns a catalog index for a linearizable read, from any node: a catalog that has reached it has seen every
// write acknowledged before the call. Wait on this node's catalog for it, then read there. DESIGN.md has the argument.
//
// It fails with NO_QUORUM when no leader could prove within Timings.Patience that it leads, and with DEADLINE or
// CANCELED when ctx ends first. Nothing is written; it may be repeated at will.
func (c *Cluster) ReadIndex(ctx context.Context) (catalog.LogIndex, error) {
	patient, cancel := context.WithTimeout(ctx, c.config.Timings.Patience)
	defer cancel()
	index, err := c.untilLed(patient, func() (catalog.LogIndex, error) {
		if c.raft.State() == raft.Leader {
			return c.share(patient, c.reads.proofs)
		}
		return c.share(patient, c.reads.asks)
	})
	if err != nil && ctx.Err() == nil && patient.Err() != nil { // silence, not the caller's haste
		return 0, errdef.Wrap(errdef.NoQuorum, err, "no leader proved for %s that it leads", c.config.Timings.Patience).
			WithRemedy("see which nodes are missing: ocistern status")
	}
	return index, err
}

// ReadIndexLocal is ReadIndex on the leader, and fails with reason NOT_LEADER elsewhere. witness is the caller's own word, or zero.
func (c *Cluster) ReadIndexLocal(ctx context.Context, witness Witness) (catalog.LogIndex, error) {
	if c.raft.State() != raft.Leader {
		return 0, errdef.New(errdef.NotLeader, "node %s does not lead", c.Self())
	}
	if index, ok := c.witnessed(witness); ok {
		return index, nil
	}
	return c.share(ctx, c.reads.proofs)
}

// share waits for an answer together with all who come before its round begins: one round is under way, and who comes
// meanwhile waits for the next one.
func (c *Cluster) share(ctx context.Context, of *rounds) (catalog.LogIndex, error) {
	round := of.join()
	select {
	case <-round.done:
		return round.index, round.err
	case <-ctx.Done():
		return 0, errdef.Wrap(errdef.ReasonOf(ctx.Err()), ctx.Err(), "no voter has confirmed the leader yet")
	case <-c.lifetime.Done():
		return 0, errdef.New(errdef.NotLeader, "node %s is shutting down", c.Self())
	}
}

// askLeader is one round of a node that does not lead: the leader is asked once for all who wait. It gives up when the leader
// changes, so that nobody waits for one that is gone.
func (c *Cluster) askLeader() (catalog.LogIndex, error) {
	ctx, cancel := c.callContext()
	defer cancel()
	changed := c.leadership.next()
	leader, peer, err := c.leaderPeer()
	switch {
	case err != nil:
		return 0, err
	case leader == c.Self(): // since a moment
		return c.ReadIndexLocal(ctx, Witness{})
	}
	ctx, end := until(ctx, changed)
	defer end()
	index, err := c.peers.ReadIndex(ctx, peer, c.witness())
	if reason := errdef.ReasonOf(err); reason == errdef.Deadline || reason == errdef.Canceled { // the round's, not its readers'
		return 0, errdef.Wrap(errdef.Unavailable, err, "leader %s did not answer", leader)
	}
	return index, err
}

// prove is one round: it takes the commit index, and only then asks the voters whether their term is still this one.
func (c *Cluster) prove() (catalog.LogIndex, error) {
	ctx, cancel := c.callContext()
	defer cancel()
	term := c.raft.CurrentTerm()
	commit, err := c.committed(ctx, term)
	if err != nil {
		return 0, err
	}
	if !c.leadsIn(term) {
		return 0, errdef.New(errdef.NotLeader, "node %s does not lead any more", c.Self())
	}
	if err := c.confirmTerm(ctx, term); err != nil {
		return 0, err
	}
	return c.readable(commit)
}

// leadsIn tells whether this node leads in a term. Terms only grow: if so, it has led in it ever since it knew an entry of its own
// to be committed there.
func (c *Cluster) leadsIn(term uint64) bool {
	return c.raft.State() == raft.Leader && c.raft.CurrentTerm() == term
}

// readable returns the catalog index for readers of a commit index.
func (c *Cluster) readable(commit catalog.LogIndex) (catalog.LogIndex, error) {
	index, err := c.lastCommand(commit)
	if c.identity.current().Restoring { // what the catalog holds now may never be committed
		return 0, errdef.New(errdef.NotLeader, "node %s is restoring a snapshot", c.Self())
	}
	return index, err
}

// committed returns the commit index of the leader of term, once an entry of that term is committed. Before, a leader
// does not know how far its predecessor has committed (Raft, section 8).
func (c *Cluster) committed(ctx context.Context, term uint64) (catalog.LogIndex, error) {
	if c.reads.settled.Load() == term { // before the commit index is looked at, which has come that far then
		return catalog.LogIndex(c.raft.CommitIndex()), nil
	}
	commit := c.raft.CommitIndex()
	var entry raft.Log
	if err := c.storage.logs.GetLog(commit, &entry); err == nil && entry.Term == term {
		c.reads.settled.Store(term)
		return catalog.LogIndex(commit), nil
	}
	// Not committed yet, or cut off after a snapshot, or unreadable: an entry of our own tells.
	if err := c.settle(ctx, c.raft.Barrier(c.config.Timings.Call)); err != nil {
		return 0, errdef.Wrap(errdef.NotLeader, err, "node %s cannot commit", c.Self())
	}
	return catalog.LogIndex(c.raft.CommitIndex()), nil
}

func (c *Cluster) askTerm(ctx context.Context, voter catalog.NodeID, term uint64) error {
	state, err := c.askState(ctx, voter)
	if err == nil && state.Term != term {
		return errdef.New(errdef.NotLeader, "node %s is in term %d, not %d", voter, state.Term, term)
	}
	return err
}

// askState asks one node itself how far it has come.
func (c *Cluster) askState(ctx context.Context, node catalog.NodeID) (NodeState, error) {
	s, ok := c.gossip.sighting(node)
	if !ok {
		return NodeState{}, errdef.New(errdef.Unavailable, "node %s has not been heard of", node)
	}
	state, err := c.peers.State(ctx, s.Peer)
	if err == nil && state.ID != node { // its disk, and with it its votes, are gone
		return state, errdef.New(errdef.ClusterMismatch, "at %s answers node %s instead of %s", s.Peer, state.ID, node)
	}
	return state, err
}
