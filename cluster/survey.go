package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Survey returns the members as the leader sees them, from any node, with what only asking tells: how far each has come, and
// since when it is silent. Where no leader can be asked, it returns what this node knows by itself, no leader among it.
func (c *Cluster) Survey(ctx context.Context) ([]Member, error) {
	var members []Member
	_, err := c.untilLed(ctx, func() (catalog.LogIndex, error) {
		leader, peer, err := c.leaderPeer()
		switch {
		case err != nil:
		case leader == c.Self():
			members, err = c.SurveyLocal(ctx)
		default:
			members, err = c.peers.Survey(ctx, peer)
		}
		return 0, err
	})
	if errdef.ReasonOf(err) != errdef.NoQuorum {
		return members, err
	}
	members = c.Members()
	for _, m := range members { // a node that was removed has no leader, and the others may have one
		if m.ID != c.Self() && m.State == StateAlive {
			if led, err := c.peers.Survey(ctx, m.Addresses.Peer); err == nil {
				return led, nil
			}
		}
	}
	for i := range members {
		members[i].Leader = false // it could not be asked
	}
	return c.ask(ctx, members), nil
}

// SurveyLocal is Survey on the leader, and fails with NOT_LEADER elsewhere.
func (c *Cluster) SurveyLocal(ctx context.Context) ([]Member, error) {
	if c.raft.State() != raft.Leader {
		return nil, errdef.New(errdef.NotLeader, "node %s does not lead", c.Self())
	}
	members := c.ask(ctx, c.Members())
	for i := range members {
		if heard, known := c.transport.contacts.of(raft.ServerID(members[i].ID)); known && members[i].ID != c.Self() {
			members[i].Silence = time.Since(heard.last)
		}
	}
	return members, nil
}

// ask adds what the members themselves tell. Those that do not answer in time tell nothing.
func (c *Cluster) ask(ctx context.Context, members []Member) []Member {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timings.Call)
	defer cancel()
	var asking sync.WaitGroup
	for i := range members {
		m := &members[i]
		if m.ID == c.Self() {
			m.Applied, m.Level = c.catalog.Snapshot().Index(), c.offered()
			continue
		}
		asking.Go(func() {
			state, err := c.peers.State(ctx, m.Addresses.Peer)
			if err == nil && state.ID == m.ID {
				m.Applied, m.Level = state.Applied, state.offers()
			}
		})
	}
	asking.Wait()
	return members
}
