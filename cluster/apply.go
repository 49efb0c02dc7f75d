package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// retryPause separates attempts to reach a leader when nothing tells that it changed.
const retryPause = 50 * time.Millisecond

// Apply submits a command from any node and returns the index of the entry that decided it, once that is committed and the
// leader has applied it. Wait on the catalog for that index to read the write here.
//
// It fails with the command's own error when the state machine refused it; with REMOVED or DIVERGED on a node whose id was
// retired; with NO_QUORUM when no leader took the command within Timings.Patience, in which case it was certainly not
// applied; with OVERLOADED, DEADLINE, CANCELED or REQUEST_EXPIRED (two requests in turn were too old when they came to the
// leader), likewise not applied; and with OUTCOME_UNKNOWN when the command was submitted and may or may not be applied, now
// or later. From feature level 2 on, a command of unknown outcome is submitted again by itself, as the same
// request, for as long as Timings.Patience: OUTCOME_UNKNOWN then says that not even that told.
func (c *Cluster) Apply(ctx context.Context, command catalog.Command) (catalog.LogIndex, error) {
	encoded, err := fsm.Encode(command)
	if err != nil {
		return 0, err
	}
	if c.catalog.Snapshot().FeatureLevel() < catalog.LevelRequests {
		return c.apply(ctx, fsm.Request{Command: encoded})
	}
	index, err := c.apply(ctx, fsm.Request{Request: c.NewRequest(), Command: encoded})
	if errdef.ReasonOf(err) != errdef.RequestExpired {
		return index, err
	}
	// Certainly not applied: this node is so far behind that what it has applied is forgotten. The leader's index is not.
	since, err := c.ReadIndex(ctx)
	if err != nil {
		return 0, errdef.Wrap(errdef.ReasonOf(err), err, "not submitted")
	}
	return c.apply(ctx, fsm.Request{Request: newRequest(since), Command: encoded})
}

// NewRequest draws a request for ApplyOnce.
func (c *Cluster) NewRequest() catalog.Request { return newRequest(c.catalog.Snapshot().Index()) }

// newRequest draws a request after since was reached, so that nothing up to there can have decided it.
func newRequest(since catalog.LogIndex) catalog.Request {
	request := catalog.Request{Since: since}
	_, _ = rand.Read(request.ID[:]) // never fails (crypto/rand)
	return request
}

// ApplyOnce is Apply for callers that submit one request again themselves, on whatever node: the command takes effect at
// most once, and each call that gets an answer gets that of the first. It fails with REQUEST_EXPIRED, and applies
// nothing, when the request is so old that its outcome may have been forgotten; with UNSUPPORTED below feature level 2.
func (c *Cluster) ApplyOnce(
	ctx context.Context, request catalog.Request, command catalog.Command,
) (catalog.LogIndex, error) {
	if request.ID == (catalog.RequestID{}) {
		return 0, errdef.New(errdef.CommandInvalid, "the request has no id")
	}
	if level := c.catalog.Snapshot().FeatureLevel(); level < catalog.LevelRequests {
		return 0, errdef.New(errdef.Unsupported, "the cluster is at feature level %d and remembers no requests", level).
			WithRemedy("see what holds it back: ocistern status")
	}
	encoded, err := fsm.Encode(command)
	if err != nil {
		return 0, err
	}
	return c.apply(ctx, fsm.Request{Request: request, Command: encoded})
}

// apply submits a request until it is decided.
func (c *Cluster) apply(ctx context.Context, request fsm.Request) (catalog.LogIndex, error) {
	if err := c.identity.retired(); err != nil {
		return 0, err // what it held is forgotten, and must not be told again
	}
	submit := func() (catalog.LogIndex, error) { return c.submit(ctx, request) }
	index, err := c.untilLed(ctx, submit)
	if errdef.ReasonOf(err) != errdef.OutcomeUnknown || request.ID == (catalog.RequestID{}) {
		return index, err
	}
	// From here on, whatever does not come from the state machine leaves the outcome unknown: an earlier attempt may
	// still be applied.
	for patience := time.Now().Add(c.config.Timings.Patience); time.Now().Before(patience); {
		if !c.pause(ctx) {
			break
		}
		index, again := c.untilLed(ctx, submit)
		if decided(again) {
			return index, again
		}
		if errdef.ReasonOf(again) == errdef.RequestExpired {
			break
		}
	}
	return 0, err
}

// decided tells whether an error, or its absence, is what the state machine made of a command.
func decided(err error) bool {
	switch errdef.ReasonOf(err) {
	case "", errdef.CommandInvalid, errdef.TagConflict, errdef.NotFound:
		return true
	default:
		return false
	}
}

// pause waits a moment before a leader is tried again. It returns false when there is no time left.
func (c *Cluster) pause(ctx context.Context) bool {
	timer := time.NewTimer(retryPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-c.lifetime.Done():
	}
	return false
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
func (c *Cluster) submit(ctx context.Context, request fsm.Request) (catalog.LogIndex, error) {
	changed := c.leadership.next()
	leader, peer, err := c.leaderPeer()
	switch {
	case err != nil:
		return 0, err
	case leader == c.Self():
		return c.ApplyLocal(ctx, request)
	}
	if request.ID != (catalog.RequestID{}) { // what can be submitted again need not wait for a leader that is gone
		var cancel context.CancelFunc
		ctx, cancel = until(ctx, changed)
		defer cancel()
	}
	index, err := c.peers.Apply(ctx, peer, request)
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

// ApplyLocal submits a request to this node, which must be the leader, and returns as Apply does. It fails with reason
// NOT_LEADER when this node does not lead or has not yet applied what it leads, and COMMAND_UNKNOWN for what the state
// machine would not understand: one such entry in the log would stop every node.
func (c *Cluster) ApplyLocal(ctx context.Context, request fsm.Request) (catalog.LogIndex, error) {
	result := c.ApplyAllLocal(ctx, []fsm.Request{request})[0]
	return result.Index, result.Err
}

// ApplyAllLocal is ApplyLocal for many requests at once. Each is decided for itself.
func (c *Cluster) ApplyAllLocal(ctx context.Context, requests []fsm.Request) []catalog.Result {
	results, submitted := make([]catalog.Result, len(requests)), make([]*submission, 0, len(requests))
	proposed := make(map[int]raft.ApplyFuture) // by place; an entry each, all in flight at once
	raised := c.catalog.Snapshot().FeatureLevel() >= catalog.LevelRequests
	for i, request := range requests {
		switch err := c.mayApply(ctx, request, raised); {
		case err != nil:
			results[i].Err = err
		case raised:
			submitted = append(submitted, &submission{
				Request: request, ctx: ctx, done: make(chan catalog.Result, 1), place: i,
			})
		default:
			proposed[i] = c.raft.Apply(request.Command, c.config.Timings.Patience)
		}
	}
	_ = c.writes.add(submitted...) // each that does not fit is told
	for _, s := range submitted {
		results[s.place].Index, results[s.place].Err = c.awaitResult(ctx, s)
	}
	for i, future := range proposed {
		results[i] = c.single(ctx, future)
	}
	return results
}

// mayApply tells that a leader may be given a request; raised, whether the feature level has requests.
func (c *Cluster) mayApply(ctx context.Context, request fsm.Request, raised bool) error {
	if _, err := fsm.Decode(request.Command); err != nil {
		return err
	}
	// A new leader has applied nothing of what it will lead, and the first command of a new cluster names it.
	if c.catalog.Snapshot().ClusterID() == "" {
		return errdef.New(errdef.NotLeader, "node %s is not ready to lead", c.Self())
	}
	if request.ID != (catalog.RequestID{}) && !raised { // its submitter has applied more than this node
		return errdef.New(errdef.NotLeader, "node %s has not caught up with its cluster's feature level", c.Self())
	}
	return c.mayPropose(ctx)
}

// mayPropose tells that a leader may be given an entry by a caller who still waits.
func (c *Cluster) mayPropose(ctx context.Context) error {
	if c.raft.State() != raft.Leader {
		return errdef.New(errdef.NotLeader, "node %s does not lead", c.Self())
	}
	if err := ctx.Err(); err != nil {
		return errdef.Wrap(errdef.ReasonOf(err), err, "not submitted")
	}
	return nil
}

// propose hands an entry of one command, which can be decoded, to Raft on this node.
func (c *Cluster) propose(ctx context.Context, entry []byte) error {
	if err := c.mayPropose(ctx); err != nil {
		return err
	}
	return c.single(ctx, c.raft.Apply(entry, c.config.Timings.Patience)).Err
}

// single is outcome for an entry of one command.
func (c *Cluster) single(ctx context.Context, future raft.ApplyFuture) catalog.Result {
	results, err := c.outcome(ctx, future)
	if err != nil {
		return catalog.Result{Err: err}
	}
	return results[0]
}

// outcome waits until an entry is applied here, and returns what its commands came to.
func (c *Cluster) outcome(ctx context.Context, future raft.ApplyFuture) ([]catalog.Result, error) {
	if err := c.settle(ctx, future); err != nil {
		return nil, applyError(err)
	}
	c.transport.commits.note(future.Index(), c.writes.busy())
	results, ok := future.Response().([]catalog.Result)
	if !ok { // applied by the others, not here: this node's state machine has stopped
		return nil, errdef.New(errdef.OutcomeUnknown, "node %s cannot apply entries any more", c.Self())
	}
	return results, nil
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
