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

// retryPause separates attempts to reach a leader when nothing tells that it changed.
const retryPause = 50 * time.Millisecond

// Apply submits a command from any node and returns the index of its entry once it is committed and the leader has
// applied it. Wait on the catalog for that index to read the write here.
//
// It fails with the command's own error when the state machine refused it; with NO_QUORUM when no leader took the
// command within Timings.Patience, in which case it was certainly not applied; with OVERLOADED, DEADLINE or CANCELED,
// likewise not applied; and with OUTCOME_UNKNOWN when the command was submitted and may or may not be applied, now or
// later.
func (c *Cluster) Apply(ctx context.Context, command catalog.Command) (catalog.LogIndex, error) {
	encoded, err := fsm.Encode(command)
	if err != nil {
		return 0, err
	}
	return c.untilLed(ctx, func() (catalog.LogIndex, error) { return c.submit(ctx, encoded) })
}

// untilLed calls ask until a leader answers it, for as long as Timings.Patience. NOT_LEADER and UNAVAILABLE say that no
// leader was asked.
func (c *Cluster) untilLed(ctx context.Context, ask func() (catalog.LogIndex, error)) (catalog.LogIndex, error) {
	patience := time.NewTimer(c.config.Timings.Patience)
	defer patience.Stop()
	for {
		changed := c.leadership.next()
		index, err := ask()
		if reason := errdef.ReasonOf(err); reason != errdef.NotLeader && reason != errdef.Unavailable {
			return index, err
		}
		pause := time.NewTimer(retryPause)
		select {
		case <-changed:
		case <-pause.C:
		case <-patience.C:
			return 0, errdef.Wrap(errdef.NoQuorum, err, "no leader could be asked for %s", c.config.Timings.Patience).
				WithRemedy("see which nodes are missing: ocistern status")
		case <-ctx.Done():
			return 0, errdef.Wrap(errdef.ReasonOf(ctx.Err()), ctx.Err(), "no leader was asked yet")
		case <-c.lifetime.Done():
			return 0, errdef.Wrap(errdef.NoQuorum, err, "this node is shutting down")
		}
		pause.Stop()
	}
}

// submit tries the leader once. NOT_LEADER and UNAVAILABLE say that nothing was submitted.
func (c *Cluster) submit(ctx context.Context, command []byte) (catalog.LogIndex, error) {
	leader, peer, err := c.leaderPeer()
	switch {
	case err != nil:
		return 0, err
	case leader == c.Self():
		return c.ApplyLocal(ctx, command)
	}
	index, err := c.peers.Apply(ctx, peer, command)
	switch errdef.ReasonOf(err) {
	case errdef.Deadline, errdef.Canceled:
		return 0, errdef.Wrap(errdef.OutcomeUnknown, err, "leader %s did not answer in time", leader)
	default:
		return index, err
	}
}

// leaderPeer returns the leader and its peer address, or NOT_LEADER when none is known and UNAVAILABLE when it cannot be
// reached.
func (c *Cluster) leaderPeer() (leader catalog.NodeID, peer string, err error) {
	_, known := c.raft.LeaderWithID()
	leader = catalog.NodeID(known)
	if leader == "" {
		return "", "", errdef.New(errdef.NotLeader, "no leader is known")
	}
	s, ok := c.gossip.sighting(leader)
	if !ok && leader != c.Self() {
		return "", "", errdef.New(errdef.Unavailable, "leader %s has not been heard of in gossip", leader)
	}
	return leader, s.Peer, nil
}

// ApplyLocal submits an encoded command (fsm.Encode) to this node, which must be the leader, and returns as Apply
// does. It fails with reason NOT_LEADER when this node does not lead, and COMMAND_UNKNOWN for what the state machine
// would not understand: one such entry in the log would stop every node.
func (c *Cluster) ApplyLocal(ctx context.Context, command []byte) (catalog.LogIndex, error) {
	if _, err := fsm.Decode(command); err != nil {
		return 0, err
	}
	// A new leader has applied nothing of what it will lead, and the first command of a new cluster names it.
	if c.catalog.Snapshot().ClusterID() == "" {
		return 0, errdef.New(errdef.NotLeader, "node %s is not ready to lead", c.Self())
	}
	return c.propose(ctx, command)
}

// propose hands a command that can be decoded to Raft on this node.
func (c *Cluster) propose(ctx context.Context, command []byte) (catalog.LogIndex, error) {
	if c.raft.State() != raft.Leader {
		return 0, errdef.New(errdef.NotLeader, "node %s does not lead", c.Self())
	}
	if err := ctx.Err(); err != nil {
		return 0, errdef.Wrap(errdef.ReasonOf(err), err, "not submitted")
	}
	future := c.raft.Apply(command, c.config.Timings.Patience)
	if err := c.settle(ctx, future); err != nil {
		return 0, applyError(err)
	}
	if refused, ok := future.Response().(error); ok {
		return 0, refused
	}
	return catalog.LogIndex(future.Index()), nil
}

// applyError sorts what Raft says about an entry. Whatever does not prove that the entry was never appended leaves the
// outcome unknown: a later leader may have it in its log and commit it.
func applyError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return errdef.Wrap(errdef.NotLeader, err, "not submitted")
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return errdef.Wrap(errdef.Overloaded, err, "not submitted: the leader is busy").WithRemedy("try again later")
	default:
		return errdef.Wrap(errdef.OutcomeUnknown, err, "the command may or may not be applied")
	}
}
