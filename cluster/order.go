package cluster

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// execute carries out an order, in steer, on the leader.
func (c *Cluster) execute(o order) {
	ctx, cancel := context.WithTimeout(o.ctx, c.config.Timings.Transport+5*c.config.Timings.Call)
	defer cancel()
	node, err := c.fulfil(ctx, o.operation)
	var typed *errdef.Error
	switch {
	case err == nil:
		c.logger.Info("an operator's order is carried out", "operation", string(o.operation.Kind), "node", node)
	case !errors.As(err, &typed):
		err = applyError(err) // as raft says it
	case typed.Reason == errdef.Unavailable: // a member, not the leader: asking again elsewhere would not help
		err = errdef.Wrap(errdef.NotReady, err, "a member does not answer")
	}
	o.answer <- outcome{node, err}
}

func (c *Cluster) fulfil(ctx context.Context, o Operation) (catalog.NodeID, error) {
	if c.raft.State() != raft.Leader || !c.progress.ready.Load() {
		return "", errdef.New(errdef.NotLeader, "node %s does not lead", c.Self())
	}
	v := c.asked(ctx, c.view())
	if o.Kind == OperationTransfer && o.Node == "" {
		return c.transfer(ctx, v, raft.Server{})
	}
	member, err := v.find(o.Node)
	if err != nil {
		return "", err
	}
	id := catalog.NodeID(member.ID)
	switch o.Kind {
	case OperationLeave:
		return id, c.dismiss(ctx, v, member)
	case OperationRemove:
		return id, c.bury(ctx, v, member)
	case OperationReplace:
		return id, c.replace(ctx, v, member, o.By)
	case OperationTransfer:
		return c.transfer(ctx, v, member)
	default:
		return "", errdef.New(errdef.Unsupported, "this node knows no operation %q", o.Kind)
	}
}

// find returns the member of an id, or of a name that is unique.
func (v view) find(text string) (raft.Server, error) {
	var named []raft.Server
	for _, server := range v.servers {
		if string(server.ID) == text {
			return server, nil
		}
		if name := v.seen[catalog.NodeID(server.ID)].Name; name != "" && name == text {
			named = append(named, server)
		}
	}
	switch len(named) {
	case 1:
		return named[0], nil
	case 0:
		return raft.Server{}, errdef.New(errdef.NotFound, "no member has the name or id %q", text).
			WithRemedy("see who is: ocistern members; the leader knows a node that it never heard of by its id only")
	default:
		var ids []string
		for _, server := range named {
			ids = append(ids, string(server.ID))
		}
		return raft.Server{}, errdef.New(errdef.UsageInvalid, "%d members have the name %q", len(ids), text).
			WithRemedy("name one by its id: %s", strings.Join(ids, ", "))
	}
}

// enough fails when the voters that are left without a member are no quorum of themselves by those that answer.
func (v view) enough(without raft.Server) error {
	if v.mayRemove(without) {
		return nil
	}
	left := v.count(func(voter raft.Server) bool { return voter.ID != without.ID })
	answer := v.count(func(voter raft.Server) bool { return voter.ID != without.ID && v.answers(voter.ID) })
	return errdef.New(errdef.QuorumAtRisk, "without %s, %d voters are left, of which %d answer", v.name(without.ID), left, answer).
		WithRemedy("start dead voters again first, or put nonvoters in their places: ocistern members replace")
}

// name is how people call a node.
func (v view) name(id raft.ServerID) string {
	return cmp.Or(v.seen[catalog.NodeID(id)].Name, string(id))
}

// dismiss tells a living member to leave. What follows from that, changes decides.
func (c *Cluster) dismiss(ctx context.Context, v view, member raft.Server) error {
	if err := v.enough(member); err != nil {
		return err
	}
	id := catalog.NodeID(member.ID)
	if id == c.Self() {
		return c.Retire(ctx, id)
	}
	err := c.peers.Retire(ctx, v.seen[id].Peer, id)
	if errdef.ReasonOf(err) == errdef.Unavailable {
		return errdef.Wrap(errdef.NotReady, err, "%s cannot be told to leave", v.name(member.ID)).
			WithRemedy("stop it, and remove it then: ocistern members remove %s", v.name(member.ID))
	}
	return err
}

// bury removes a dead member.
func (c *Cluster) bury(ctx context.Context, v view, member raft.Server) error {
	if err := c.provenDead(ctx, v, member); err != nil {
		return err
	}
	if err := v.enough(member); err != nil {
		return err
	}
	return c.remove(ctx, v.term, member.ID)
}

func (c *Cluster) provenDead(ctx context.Context, v view, member raft.Server) error {
	var err error
	if catalog.NodeID(member.ID) != c.Self() {
		err = c.confirmDead(ctx, member)
		if errdef.ReasonOf(err) != errdef.MemberAlive {
			return err
		}
	}
	return errdef.New(errdef.MemberAlive, "%s is alive: it answers at %s", v.name(member.ID), member.Address).
		WithRemedy("make it leave: ocistern members leave %s", v.name(member.ID))
}

// replace promotes a nonvoter, unless an earlier attempt has done so, then removes the dead voter whose place it takes.
func (c *Cluster) replace(ctx context.Context, v view, gone raft.Server, by string) error {
	if gone.Suffrage != raft.Voter {
		return errdef.New(errdef.UsageInvalid, "%s is no voter: nothing is to be replaced", v.name(gone.ID)).
			WithRemedy("remove it: ocistern members remove %s", v.name(gone.ID))
	}
	if err := c.provenDead(ctx, v, gone); err != nil {
		return err
	}
	if v.voters() <= v.expect {
		if err := c.promoteSpare(ctx, v, by); err != nil {
			return err
		}
	}
	if err := c.asked(ctx, c.view()).enough(gone); err != nil {
		return err
	}
	return c.remove(ctx, v.term, gone.ID)
}

// promoteSpare promotes the named nonvoter, or the first one that can be. A named one that votes has been promoted already.
func (c *Cluster) promoteSpare(ctx context.Context, v view, named string) error {
	spares := v.servers
	if named != "" {
		spare, err := v.find(named)
		if err != nil {
			return err
		}
		if spare.Suffrage == raft.Voter {
			return nil
		}
		spares = []raft.Server{spare}
	}
	failure := error(errdef.New(errdef.NotFound, "there is no nonvoter to take the place").
		WithRemedy("start a node with an empty data directory, or remove the dead one: ocistern members remove"))
	for _, spare := range spares {
		if spare.Suffrage == raft.Voter {
			continue
		}
		spare.Suffrage = raft.Voter
		wish := change{action: actionPromote, node: spare, peer: v.seen[catalog.NodeID(spare.ID)].Peer}
		if failure = c.confirm(ctx, wish); failure == nil {
			return c.carryOut(ctx, v.term, wish)
		}
	}
	return failure
}

// Retire ends the membership of this node for good, at the word of an operator: it is told by the leader, which then
// removes it. It goes on to take part until then, and stays up after that, but is not ready and never joins again on this
// disk. It fails with CLUSTER_MISMATCH when another node is meant.
func (c *Cluster) Retire(_ context.Context, node catalog.NodeID) error {
	if node != c.Self() {
		return errdef.New(errdef.ClusterMismatch, "this is node %s, not %s", c.Self(), node)
	}
	if err := c.identity.retire(errdef.Removed, "node "+string(node)+" was told to leave cluster "+c.ClusterID()); err != nil {
		return err
	}
	c.gossip.poke() // the loop announces it
	return nil
}
