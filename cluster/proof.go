package cluster

import (
	"context"
	"errors"
	"sync"
	"syscall"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// asked returns a view in which the voters that seem to answer have been asked: one that does not, or that is retired, is
// not counted on. What gossip tells is seconds old, and of two that leave at once each would count the other.
func (c *Cluster) asked(ctx context.Context, v view) view {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timings.Call)
	defer cancel()
	states, failures := make([]NodeState, len(v.servers)), make([]error, len(v.servers))
	var asking sync.WaitGroup
	for i, server := range v.servers {
		if server.Suffrage == raft.Voter && catalog.NodeID(server.ID) != v.self && v.answers(server.ID) {
			asking.Go(func() { states[i], failures[i] = c.askState(ctx, catalog.NodeID(server.ID)) })
		}
	}
	asking.Wait()
	for i, server := range v.servers { // seen is this view's own
		s := v.seen[catalog.NodeID(server.ID)]
		if failures[i] != nil {
			s.State = StateSuspect
		}
		s.Retired = s.Retired || states[i].Retired
		v.seen[catalog.NodeID(server.ID)] = s
	}
	return v
}

// mayGo asks the voters that would be left whether they are there, before one goes.
func (c *Cluster) mayGo(ctx context.Context, id raft.ServerID) error {
	v := c.view()
	gone, listed := v.server(func(server raft.Server) bool { return server.ID == id })
	if !listed || gone.Suffrage != raft.Voter {
		return nil
	}
	return c.asked(ctx, v).enough(gone)
}

// confirmDead fails when a member answers after all, at its peer or at its Raft address, with MEMBER_ALIVE; and with
// NOT_READY when this node cannot tell: silence, and a name that does not resolve, may be its own trouble, so gossip, in
// which other nodes look for it as well, must have lost it, too. A refusal, and another node at its address, tell enough.
func (c *Cluster) confirmDead(ctx context.Context, member raft.Server) error {
	id := catalog.NodeID(member.ID)
	ctx, cancel := context.WithTimeout(ctx, c.config.Timings.Call)
	defer cancel()
	if _, err := c.askState(ctx, id); err == nil {
		return errdef.New(errdef.MemberAlive, "node %s answers", id)
	}
	reply, err := c.transport.stream.occupant(id, string(member.Address))
	switch s, _ := c.gossip.sighting(id); {
	case err == nil && reply.Node == id:
		return errdef.New(errdef.MemberAlive, "node %s answers at %s", id, member.Address)
	case err == nil, errors.Is(err, syscall.ECONNREFUSED), s.State != StateAlive:
		return nil
	default:
		return errdef.Wrap(errdef.NotReady, err, "the leader cannot reach node %s at %s, and gossip still sees it alive", id, member.Address).
			WithRemedy("if it is dead, try again in a few seconds")
	}
}

// confirmRetired fails unless a member says itself that it is retired, or was stopped after it had said so: it does not
// start again on its disk.
func (c *Cluster) confirmRetired(ctx context.Context, wish change) error {
	state, err := c.peers.State(ctx, wish.peer)
	switch {
	case err != nil:
		return c.confirmDead(ctx, wish.node)
	case state.ID != catalog.NodeID(wish.node.ID) || !state.Retired:
		return errdef.New(errdef.MemberAlive, "at %s answers node %s, which is not retired", wish.peer, state.ID)
	default:
		return nil
	}
}
