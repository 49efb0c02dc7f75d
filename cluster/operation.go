package cluster

import (
	"context"
	"time"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// OperationKind is what an operator may ask for.
type OperationKind string

// The operations.
const (
	// OperationLeave makes a living member leave for good, as OperationRemove does for one that is dead. A nonvoter takes
	// the place of a voter first where there is one.
	OperationLeave  OperationKind = "leave"
	OperationRemove OperationKind = "remove"
	// OperationReplace puts a nonvoter in the place of a dead voter at once.
	OperationReplace OperationKind = "replace"
	// OperationTransfer hands the leadership to another voter.
	OperationTransfer OperationKind = "transfer"
)

// Operation is what an operator wants done about a member. Nodes are named by id, or by name where that is unique.
type Operation struct {
	Kind OperationKind
	// Node is the member that leaves, is removed or replaced, or is to lead; there, empty leaves the choice to Raft.
	Node string
	// By is the nonvoter that takes its place in OperationReplace, empty for any.
	By string
}

// order is an operation on its way to steer, which alone changes the configuration.
type order struct {
	ctx       context.Context
	operation Operation
	answer    chan<- outcome // has room for one
}

type outcome struct {
	node catalog.NodeID
	err  error
}

// Operate carries an operation out from any node, through the leader, and returns the id of the member concerned once it is
// done. It may be repeated, also after OUTCOME_UNKNOWN.
//
// It fails with NOT_FOUND or USAGE_INVALID for a name that is no member's or several members', QUORUM_AT_RISK when the
// voters that would be left are no quorum of themselves by those that answer, MEMBER_ALIVE when a member to be removed or
// replaced answers, NOT_READY when one that has to take part does not answer or is not caught up, and NO_QUORUM,
// OUTCOME_UNKNOWN, DEADLINE and CANCELED as Apply does.
func (c *Cluster) Operate(ctx context.Context, operation Operation) (catalog.NodeID, error) {
	var concerned catalog.NodeID
	_, err := c.untilLed(ctx, func() (catalog.LogIndex, error) {
		leader, peer, err := c.leaderPeer()
		switch {
		case err != nil:
		case leader == c.Self():
			concerned, err = c.OperateLocal(ctx, operation)
		default:
			concerned, err = c.peers.Operate(ctx, peer, operation)
		}
		return 0, err
	})
	if err == nil && operation.Kind == OperationLeave {
		err = c.awaitGone(ctx, concerned)
	}
	return concerned, err
}

// OperateLocal is Operate on the leader, and fails with NOT_LEADER elsewhere. It returns when a member that leaves has been
// told; steer does the rest.
func (c *Cluster) OperateLocal(ctx context.Context, operation Operation) (catalog.NodeID, error) {
	answer := make(chan outcome, 1)
	select {
	case c.orders <- order{ctx, operation, answer}:
	case <-ctx.Done():
		return "", errdef.Wrap(errdef.ReasonOf(ctx.Err()), ctx.Err(), "the leader is busy with its members")
	case <-c.lifetime.Done():
		return "", errdef.New(errdef.NotLeader, "node %s is shutting down", c.Self())
	}
	select {
	case done := <-answer:
		return done.node, done.err
	case <-ctx.Done():
		return "", begun(operation, ctx.Err())
	case <-c.lifetime.Done():
		return "", begun(operation, errdef.New(errdef.NotLeader, "node %s is shutting down", c.Self()))
	}
}

func begun(operation Operation, cause error) error {
	return errdef.Wrap(errdef.OutcomeUnknown, cause, "the leader has begun to %s %s", operation.Kind, operation.Node).
		WithRemedy("see how far it came: ocistern members")
}

// awaitGone waits until a member that leaves is out of the configuration, as the leader has it.
func (c *Cluster) awaitGone(ctx context.Context, id catalog.NodeID) error {
	ticker := time.NewTicker(retryPause)
	defer ticker.Stop()
	for {
		members, err := c.Survey(ctx)
		if err == nil && roleIn(members, id) == RoleNone {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errdef.Wrap(errdef.ReasonOf(ctx.Err()), ctx.Err(), "node %s has been told to leave, and is still a member", id).
				WithRemedy("the leader goes on; see how far it came: ocistern members")
		case <-c.lifetime.Done():
			return errdef.New(errdef.Unavailable, "this node is shutting down")
		}
	}
}

// roleIn returns the role of a node in a view that knows a leader, the only one that can tell that it is a member no more.
func roleIn(members []Member, id catalog.NodeID) Role {
	role, led := RoleNone, false
	for _, member := range members {
		if member.ID == id {
			role = member.Role
		}
		led = led || member.Leader
	}
	if !led {
		return ""
	}
	return role
}
