package cluster

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

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
			members, err = c.surveyBy(ctx, peer)
		}
		return 0, err
	})
	if errdef.ReasonOf(err) != errdef.NoQuorum {
		return members, err
	}
	members = c.Members()
	if led := c.surveyElsewhere(ctx, members); led != nil {
		return led, nil
	}
	for i := range members {
		members[i].Leader = false // it could not be asked
	}
	return c.ask(ctx, members), nil
}

// surveyBy asks a leader, who asks everybody for as long as Timings.Call. One that says nothing for twice as long is
// UNAVAILABLE.
func (c *Cluster) surveyBy(ctx context.Context, peer string) ([]Member, error) {
	bounded, cancel := context.WithTimeout(ctx, 2*c.config.Timings.Call)
	defer cancel()
	members, err := c.peers.Survey(bounded, peer)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		return nil, errdef.Wrap(errdef.Unavailable, err, "the leader does not answer")
	}
	return members, err
}

// surveyElsewhere asks whoever is alive, all at once, and returns nil where none leads: a node that was removed knows no
// leader, and the others may have one.
func (c *Cluster) surveyElsewhere(ctx context.Context, members []Member) []Member {
	ctx, cancel := context.WithTimeout(ctx, 2*c.config.Timings.Call)
	defer cancel()
	var led atomic.Pointer[[]Member]
	var asking errgroup.Group
	asking.SetLimit(maxAsked)
	for _, m := range members {
		if m.ID == c.Self() || m.State != StateAlive {
			continue
		}
		asking.Go(func() error {
			if told, err := c.peers.Survey(ctx, m.Addresses.Peer); err == nil {
				led.Store(&told)
				cancel() // one is enough
			}
			return nil
		})
	}
	_ = asking.Wait() // never fails
	if told := led.Load(); told != nil {
		return *told
	}
	return nil
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

// maxAsked bounds how many nodes are asked at a time.
const maxAsked = 32

// ask adds what the members themselves tell. Those that do not answer in time tell nothing. Who is no member and not alive is
// not asked: gossip remembers many.
func (c *Cluster) ask(ctx context.Context, members []Member) []Member {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timings.Call)
	defer cancel()
	var asking errgroup.Group
	asking.SetLimit(maxAsked)
	for i := range members {
		m := &members[i]
		switch {
		case m.ID == c.Self():
			m.Applied, m.Level = c.catalog.Snapshot().Index(), c.offered()
			continue
		case m.Addresses.Peer == "", m.Role == RoleNone && m.State != StateAlive && m.State != StateRetired:
			continue
		}
		asking.Go(func() error {
			state, err := c.peers.State(ctx, m.Addresses.Peer)
			if err == nil && state.ID == m.ID {
				m.Applied, m.Level = state.Applied, state.offers()
			}
			return nil
		})
	}
	_ = asking.Wait() // never fails
	return members
}
