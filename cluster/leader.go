package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// promotionLag is how many entries a nonvoter may be behind when it becomes a voter: about a batch. A voter that is far
// behind would count at once, and hold up commits when another one fails.
const promotionLag = 16

// nameCluster makes SetCluster the first command of a new cluster.
func (c *Cluster) nameCluster(ctx context.Context) error {
	if c.catalog.Snapshot().ClusterID() != "" {
		return nil
	}
	command, err := fsm.Encode(catalog.SetCluster{ClusterID: c.ClusterID()})
	if err != nil {
		return err
	}
	return c.propose(ctx, command)
}

// lead looks after the members, on the leader: it carries out the first change that the node concerned confirms, and
// reports whether there was one.
func (c *Cluster) lead() bool {
	if c.raft.State() != raft.Leader || !c.progress.ready.Load() {
		return false
	}
	v := c.view()
	if v.retired(raft.ServerID(v.self)) {
		c.stepAside(v)
		return false
	}
	if err := c.bounded(c.tellFormers); err != nil {
		c.logger.Debug("what this cluster was before is not in the catalog yet", "error", err)
	}
	var tooOld error
	for _, wish := range v.changes() {
		confirmed, err := false, c.bounded(func(ctx context.Context) error { return c.confirm(ctx, wish) })
		if err == nil {
			// A time of its own: to confirm that a node is dead can take all of the first one.
			confirmed, err = true, c.bounded(func(ctx context.Context) error { return c.carryOut(ctx, v.term, wish) })
		}
		if err == nil {
			c.logger.Info("membership changed", "action", string(wish.action), "node", wish.node.ID,
				"address", wish.node.Address, "replaced", wish.replaced)
			return true
		}
		c.logger.Debug("membership is not changed yet", "action", string(wish.action), "node", wish.node.ID,
			"error", err)
		if errdef.ReasonOf(err) == errdef.VersionTooOld {
			tooOld = err
		}
		if confirmed { // it may be in the log all the same: what is to be done next is not to be told from this view
			return false
		}
	}
	c.tellHeldBack(errors.Join(tooOld, c.raiseLevel()))
	return false
}

// view is what this node, the leader, knows now.
func (c *Cluster) view() view {
	term := c.raft.CurrentTerm() // before the servers: in one term, only this leader changes them
	servers := c.servers()
	v := view{
		term: term, self: c.Self(), cluster: c.ClusterID(), expect: c.config.Expect, servers: servers, seen: c.gossip.seen(),
		heard: c.transport.contacts.follow(term, servers), now: time.Now(),
		deadAfter: c.config.DeadVoterAfter, steady: c.config.Steady, silence: c.config.Timings.Election,
	}
	v.seen[v.self] = sighting{metadata: c.gossip.self(), State: StateAlive} // a leader may have moved, too
	return v
}

// confirm asks the node itself, at its peer address and at its Raft address. Gossip alone is no reason for anything.
func (c *Cluster) confirm(ctx context.Context, wish change) error {
	if gone := wish.gone(); gone != "" {
		if err := c.mayGo(ctx, gone); err != nil {
			return err
		}
	}
	switch {
	case wish.action == actionRemove:
		return c.confirmDead(ctx, wish.node)
	case wish.action == actionRelease:
		return c.confirmRetired(ctx, wish)
	case catalog.NodeID(wish.node.ID) == c.Self():
		return nil
	default:
		return c.confirmLiving(ctx, wish)
	}
}

// confirmLiving asks a node that is to be a member from now on, or another kind of one, or elsewhere.
func (c *Cluster) confirmLiving(ctx context.Context, wish change) error {
	id := catalog.NodeID(wish.node.ID)
	// The leader's index first: what the node has applied by then is at least as far as it is compared to.
	reached := c.catalog.Snapshot().Index()
	state, err := c.peers.State(ctx, wish.peer)
	if err != nil {
		return err
	}
	if state.ID != id || state.ClusterID != "" && state.ClusterID != c.ClusterID() {
		return errdef.New(errdef.ClusterMismatch, "at %s answers node %s of cluster %q",
			wish.peer, state.ID, state.ClusterID)
	}
	if state.Retired {
		return errdef.New(errdef.Removed, "node %s is retired", id)
	}
	if wish.action == actionPromote && (state.Applied == 0 || state.Applied+promotionLag < reached) {
		return errdef.New(errdef.NotReady, "node %s is at index %d of %d", id, state.Applied, reached)
	}
	meant := id
	if wish.action == actionReplace {
		meant = catalog.NodeID(wish.replaced) // so that the old node, if it is there after all, answers
	}
	reply, err := c.transport.stream.occupant(meant, string(wish.node.Address))
	if err != nil {
		return err
	}
	if reply.Node != id {
		return errdef.New(errdef.ClusterMismatch, "at %s answers node %s", wish.node.Address, reply.Node)
	}
	return c.admissible(ctx, state) // last: it may write an entry
}

// stepAside makes a leader that is to leave hand over: it cannot remove itself and see to what comes after.
func (c *Cluster) stepAside(v view) {
	ctx, cancel := c.callContext()
	defer cancel()
	if _, err := c.transfer(ctx, v, raft.Server{}); err != nil {
		c.logger.Warn("this node is to leave, and nobody takes the leadership yet", "error", err)
	}
}

// carryOut changes the configuration by one server and waits until that is committed. It fails with NOT_LEADER when the term
// in which it was decided is over: another leader may have changed the configuration since. (raft could compare the index of
// the configuration, but does not tell it.)
func (c *Cluster) carryOut(ctx context.Context, term uint64, wish change) error {
	if gone := wish.gone(); gone != "" {
		return c.remove(ctx, term, gone)
	}
	if err := c.stillIn(term); err != nil {
		return err
	}
	node, timeout := wish.node, c.config.Timings.Call
	if node.Suffrage == raft.Voter {
		return c.settle(ctx, c.raft.AddVoter(node.ID, node.Address, 0, timeout))
	}
	return c.settle(ctx, c.raft.AddNonvoter(node.ID, node.Address, 0, timeout))
}

// remove takes a node out of the catalog's holders and out of the configuration. In this order: a crash in between repeats
// both.
func (c *Cluster) remove(ctx context.Context, term uint64, id raft.ServerID) error {
	if err := c.forget(ctx, catalog.NodeID(id)); err != nil {
		return err
	}
	if err := c.stillIn(term); err != nil {
		return err
	}
	return c.settle(ctx, c.raft.RemoveServer(id, 0, c.config.Timings.Call))
}

// stillIn fails when a term is over.
func (c *Cluster) stillIn(term uint64) error {
	if now := c.raft.CurrentTerm(); now != term {
		return errdef.New(errdef.NotLeader, "this was decided in term %d; it is term %d", term, now)
	}
	return nil
}

// forget takes a node out of the holders of all blobs. One whose disk is still there tells what it holds when it is back.
func (c *Cluster) forget(ctx context.Context, node catalog.NodeID) error {
	command, err := fsm.Encode(catalog.RemoveHolder{Node: node, All: true})
	if err != nil {
		return err
	}
	return c.propose(ctx, command)
}
