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
	_, err = c.propose(ctx, command)
	return err
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
	var tooOld error
	for _, wish := range v.changes() {
		confirmed, err := false, c.bounded(func(ctx context.Context) error { return c.confirm(ctx, wish) })
		if err == nil {
			// A time of its own: to confirm that a node is dead can take all of the first one.
			confirmed, err = true, c.bounded(func(ctx context.Context) error { return c.carryOut(ctx, wish) })
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
	servers := c.servers()
	v := view{
		self: c.Self(), cluster: c.ClusterID(), expect: c.config.Expect, servers: servers, seen: c.gossip.seen(),
		heard: c.transport.contacts.follow(c.raft.CurrentTerm(), servers), now: time.Now(),
		deadAfter: c.config.DeadVoterAfter, steady: c.config.Steady, silence: c.config.Timings.Election,
	}
	v.seen[v.self] = sighting{metadata: c.gossip.self(), State: StateAlive} // a leader may have moved, too
	return v
}

// confirm asks the node itself, at its peer address and at its Raft address. Gossip alone is no reason for anything.
func (c *Cluster) confirm(ctx context.Context, wish change) error {
	switch wish.action {
	case actionRemove:
		return c.confirmDead(wish.node)
	case actionRelease:
		return c.confirmRetired(ctx, wish)
	}
	id := catalog.NodeID(wish.node.ID)
	if id == c.Self() {
		return nil
	}
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
	if err := c.admissible(state); err != nil {
		return err
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
	return nil
}

// confirmDead fails when a member answers at its Raft address after all.
func (c *Cluster) confirmDead(member raft.Server) error {
	reply, err := c.transport.stream.occupant(catalog.NodeID(member.ID), string(member.Address))
	if err != nil || reply.Node != catalog.NodeID(member.ID) {
		return nil
	}
	return errdef.New(errdef.MemberAlive, "node %s answers at %s", member.ID, member.Address)
}

// confirmRetired fails unless a member says itself that it is retired.
func (c *Cluster) confirmRetired(ctx context.Context, wish change) error {
	state, err := c.peers.State(ctx, wish.peer)
	if err == nil && (state.ID != catalog.NodeID(wish.node.ID) || !state.Retired) {
		return errdef.New(errdef.MemberAlive, "at %s answers node %s, which is not retired", wish.peer, state.ID)
	}
	return err
}

// stepAside makes a leader that is to leave hand over: it cannot remove itself and see to what comes after.
func (c *Cluster) stepAside(v view) {
	ctx, cancel := c.callContext()
	defer cancel()
	if _, err := c.transfer(ctx, v, raft.Server{}); err != nil {
		c.logger.Warn("this node is to leave, and nobody takes the leadership yet", "error", err)
	}
}

// carryOut changes the configuration by one server and waits until that is committed.
func (c *Cluster) carryOut(ctx context.Context, wish change) error {
	node, timeout := wish.node, c.config.Timings.Call
	switch {
	case wish.action == actionReplace:
		return c.remove(ctx, wish.replaced)
	case wish.action == actionRemove, wish.action == actionRelease:
		return c.remove(ctx, node.ID)
	case node.Suffrage == raft.Voter:
		return c.settle(ctx, c.raft.AddVoter(node.ID, node.Address, 0, timeout))
	default:
		return c.settle(ctx, c.raft.AddNonvoter(node.ID, node.Address, 0, timeout))
	}
}

// remove takes a node out of the catalog's holders and out of the configuration. In this order: a crash in between repeats
// both.
func (c *Cluster) remove(ctx context.Context, id raft.ServerID) error {
	if err := c.forget(ctx, catalog.NodeID(id)); err != nil {
		return err
	}
	return c.settle(ctx, c.raft.RemoveServer(id, 0, c.config.Timings.Call))
}

// forget takes a node out of the holders of all blobs. One whose disk is still there tells what it holds when it is back.
func (c *Cluster) forget(ctx context.Context, node catalog.NodeID) error {
	command, err := fsm.Encode(catalog.RemoveHolder{Node: node, All: true})
	if err != nil {
		return err
	}
	_, err = c.propose(ctx, command)
	return err
}
