package cluster

import (
	"context"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

var _ Peers = (*fleet)(nil)

// at returns the running cluster at a peer address.
func (f *fleet) at(address string) (*Cluster, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if n := f.nodes[address]; n != nil && n.cluster != nil {
		return n.cluster, nil
	}
	return nil, errdef.New(errdef.Unavailable, "nothing listens at %q", address)
}

// Apply implements Peers, as do the methods below.
func (f *fleet) Apply(ctx context.Context, address string, request fsm.Request) (catalog.LogIndex, error) {
	c, err := f.at(address)
	if err != nil {
		return 0, err
	}
	if f.apply != nil {
		return f.apply(ctx, c, request)
	}
	return c.ApplyLocal(ctx, request)
}

func (f *fleet) Promise(ctx context.Context, address string, p Promise) error {
	c, err := f.at(address)
	if err != nil {
		return err
	}
	if f.promise != nil {
		return f.promise(c, p)
	}
	return c.Promise(ctx, p)
}

func (f *fleet) Release(ctx context.Context, address string, p Promise) error {
	c, err := f.at(address)
	if err != nil {
		return err
	}
	return c.Release(ctx, p)
}

func (f *fleet) State(_ context.Context, address string) (NodeState, error) {
	c, err := f.at(address)
	if err != nil {
		return NodeState{}, err
	}
	if f.state != nil {
		return f.state(c)
	}
	return c.State(), nil
}

func (f *fleet) ReadIndex(ctx context.Context, address string, witness Witness) (catalog.LogIndex, error) {
	c, err := f.at(address)
	if err != nil {
		return 0, err
	}
	if f.readIndex != nil {
		return f.readIndex(ctx, c, witness)
	}
	return c.ReadIndexLocal(ctx, witness)
}

func (f *fleet) HashAt(
	ctx context.Context, address string, node catalog.NodeID, index catalog.LogIndex,
) (Hash, error) {
	c, err := f.at(address)
	if err != nil {
		return Hash{}, err
	}
	if f.hash != nil {
		return f.hash(c, index)
	}
	return c.HashAt(ctx, node, index)
}

func (f *fleet) Retire(ctx context.Context, address string, node catalog.NodeID) error {
	c, err := f.at(address)
	if err != nil {
		return err
	}
	return c.Retire(ctx, node)
}

func (f *fleet) Survey(ctx context.Context, address string) ([]Member, error) {
	c, err := f.at(address)
	if err != nil {
		return nil, err
	}
	if f.survey != nil {
		return f.survey(ctx)
	}
	return c.SurveyLocal(ctx)
}

func (f *fleet) Operate(ctx context.Context, address string, operation Operation) (catalog.NodeID, error) {
	c, err := f.at(address)
	if err != nil {
		return "", err
	}
	return c.OperateLocal(ctx, operation)
}
