package cluster

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// transfers watches over leadership transfers. One that is interrupted can leave raft refusing all writes, also when this
// node leads again much later (hashicorp/raft issue 696). Such a node must end: nothing else clears it.
type transfers struct {
	refused atomic.Bool // raft has refused something because of a transfer
	since   time.Time   // since when steer sees it refuse; zero while it does not
}

// hangs is told what raft answers to a barrier, and reports whether it has been refusing for longer than limit.
func (t *transfers) hangs(err error, now time.Time, limit time.Duration) bool {
	switch {
	case err == nil:
		t.refused.Store(false)
		t.since = time.Time{}
	case !errors.Is(err, raft.ErrLeadershipTransferInProgress): // it does not lead, or cannot commit: another matter
		t.since = time.Time{}
	case t.since.IsZero():
		t.since = now
	default:
		return now.Sub(t.since) > limit
	}
	return false
}

// checkTransfers ends this node when raft hangs in a transfer. It costs nothing before raft has refused something.
func (c *Cluster) checkTransfers() {
	t := &c.transfers
	if !t.refused.Load() || c.raft.State() != raft.Leader {
		t.since = time.Time{}
		return
	}
	ctx, cancel := c.callContext()
	defer cancel()
	err := c.settle(ctx, c.raft.Barrier(c.config.Timings.Call))
	limit := 2*c.config.Timings.Election + c.config.Timings.Transport // all that a transfer may take
	if c.lifetime.Err() == nil && t.hangs(err, time.Now(), limit) {
		c.config.Fatal(errdef.Wrap(errdef.Internal, err, "a leadership transfer has hung for %s; this node ends, so that "+
			"another one can lead", limit).WithRemedy("start it again"))
	}
}

// transfer hands the leadership to a voter that answers, any where none is named, and returns its id.
func (c *Cluster) transfer(ctx context.Context, v view, to raft.Server) (catalog.NodeID, error) {
	if to.ID == "" {
		var err error
		if to, err = v.successor(); err != nil {
			return "", err
		}
	}
	id := catalog.NodeID(to.ID)
	switch {
	case id == c.Self():
		return id, nil
	case to.Suffrage != raft.Voter:
		return "", errdef.New(errdef.UsageInvalid, "%s is no voter", v.name(to.ID)).WithRemedy("see who is: ocistern members")
	case !v.answers(to.ID):
		return "", errdef.New(errdef.NotReady, "%s does not answer", v.name(to.ID)).
			WithRemedy("name another voter, or none")
	}
	if err := c.settle(ctx, c.raft.LeadershipTransferToServer(to.ID, to.Address)); err != nil {
		return "", errdef.Wrap(errdef.NotReady, err, "%s has not taken the leadership", v.name(to.ID)).
			WithRemedy("try again: it has to have the whole log first")
	}
	return id, nil
}

// successor returns a voter that answers.
func (v view) successor() (raft.Server, error) {
	for _, server := range v.servers {
		if server.Suffrage == raft.Voter && catalog.NodeID(server.ID) != v.self && v.answers(server.ID) {
			return server, nil
		}
	}
	return raft.Server{}, errdef.New(errdef.NotReady, "no other voter answers").WithRemedy("see who is there: ocistern members")
}
