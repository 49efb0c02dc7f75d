package simulation

import (
	"context"

	"github.com/ocistern/ocistern/cluster"
	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// peers asks other nodes over the network, as internal/rpc does over gRPC: a question can be lost, so can an answer, and who
// asks cannot tell which.
type peers struct {
	fleet *fleet
	from  *endpoint
}

var _ cluster.Peers = peers{}

// ask carries a question to the node at an address, and its answer back.
func ask[T any](ctx context.Context, p peers, address string,
	question func(context.Context, *cluster.Cluster) (T, error)) (T, error) {
	var none T
	target := p.fleet.at(address)
	if target == nil {
		return none, errdef.New(errdef.Unavailable, "nobody has the address %s", address)
	}
	there := *target.ip.Load()
	if err := p.fleet.network.carry(ctx, link{p.from.host, there}); err != nil {
		return none, errdef.Wrap(errdef.ReasonOf(err), err, "%s does not answer", address)
	}
	n := target.running.Load()
	if n == nil {
		return none, errdef.New(errdef.Unavailable, "connection refused by %s", address)
	}
	type reply struct {
		value T
		err   error
	}
	answered := make(chan reply, 1)
	go func() {
		serving, end := n.serving(ctx)
		defer end()
		value, err := question(serving, n.cluster)
		answered <- reply{value, err}
	}()
	select {
	case r := <-answered:
		if err := p.fleet.network.carry(ctx, link{there, p.from.host}); err != nil || n.endpoint.alive.Err() != nil {
			return none, errdef.Wrap(errdef.OutcomeUnknown, err, "the answer of %s was lost", address)
		}
		return r.value, r.err
	case <-ctx.Done():
		return none, errdef.Wrap(errdef.OutcomeUnknown, ctx.Err(), "%s did not answer", address)
	case <-n.endpoint.alive.Done():
		return none, errdef.New(errdef.OutcomeUnknown, "%s died before it answered", address)
	}
}

// serving is the context of a call at the node that serves it. It does not learn that the caller has given up; it knows the
// caller's deadline alone.
func (n *node) serving(caller context.Context) (context.Context, context.CancelFunc) {
	if deadline, ok := caller.Deadline(); ok {
		return context.WithDeadline(n.endpoint.alive, deadline)
	}
	return context.WithCancel(n.endpoint.alive)
}

// Apply implements cluster.Peers, as do the methods below.
func (p peers) Apply(ctx context.Context, address string, request fsm.Request) (catalog.LogIndex, error) {
	return ask(ctx, p, address, func(ctx context.Context, c *cluster.Cluster) (catalog.LogIndex, error) {
		return c.ApplyLocal(ctx, request)
	})
}

func (p peers) Promise(ctx context.Context, address string, promise cluster.Promise) error {
	_, err := ask(ctx, p, address, func(ctx context.Context, c *cluster.Cluster) (struct{}, error) {
		return struct{}{}, c.Promise(ctx, promise)
	})
	return err
}

func (p peers) Release(ctx context.Context, address string, promise cluster.Promise) error {
	_, err := ask(ctx, p, address, func(ctx context.Context, c *cluster.Cluster) (struct{}, error) {
		return struct{}{}, c.Release(ctx, promise)
	})
	return err
}

func (p peers) State(ctx context.Context, address string) (cluster.NodeState, error) {
	return ask(ctx, p, address, func(_ context.Context, c *cluster.Cluster) (cluster.NodeState, error) {
		return c.State(), nil
	})
}

func (p peers) HashAt(ctx context.Context, address string, id catalog.NodeID, index catalog.LogIndex) (cluster.Hash, error) {
	return ask(ctx, p, address, func(ctx context.Context, c *cluster.Cluster) (cluster.Hash, error) {
		return c.HashAt(ctx, id, index)
	})
}

func (p peers) Survey(ctx context.Context, address string) ([]cluster.Member, error) {
	return ask(ctx, p, address, func(ctx context.Context, c *cluster.Cluster) ([]cluster.Member, error) {
		return c.SurveyLocal(ctx)
	})
}

func (p peers) Operate(ctx context.Context, address string, operation cluster.Operation) (catalog.NodeID, error) {
	return ask(ctx, p, address, func(ctx context.Context, c *cluster.Cluster) (catalog.NodeID, error) {
		return c.OperateLocal(ctx, operation)
	})
}

func (p peers) Retire(ctx context.Context, address string, id catalog.NodeID) error {
	_, err := ask(ctx, p, address, func(ctx context.Context, c *cluster.Cluster) (struct{}, error) {
		return struct{}{}, c.Retire(ctx, id)
	})
	return err
}

func (p peers) ReadIndex(ctx context.Context, address string, witness cluster.Witness) (catalog.LogIndex, error) {
	return ask(ctx, p, address, func(ctx context.Context, c *cluster.Cluster) (catalog.LogIndex, error) {
		return c.ReadIndexLocal(ctx, witness)
	})
}
