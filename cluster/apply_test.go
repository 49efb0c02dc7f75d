package cluster

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/fsm/catalog/catalogtest"
	"github.com/ocistern/ocistern/internal/errdef"
)

// What the state machine says of a command comes back through any node; what nobody would understand never enters the
// log.
func TestApplyReturnsTheCommandsError(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	nodes[0].write("taken")
	again := push("taken")
	again.Tags[0].ExpectAbsent = true
	leader := f.leader(nodes...)
	for _, n := range nodes {
		if _, err := n.cluster.Apply(t.Context(), again); errdef.ReasonOf(err) != errdef.TagConflict {
			t.Errorf("through %s: got %v, want %s", n.config.Name, err, errdef.TagConflict)
		}
		before := leader.cluster.Status().LastIndex
		_, err := n.cluster.ApplyLocal(t.Context(), fsm.Request{Command: []byte("no command")})
		if errdef.ReasonOf(err) != errdef.CommandUnknown {
			t.Errorf("got %v, want %s", err, errdef.CommandUnknown)
		}
		if after := leader.cluster.Status().LastIndex; after != before {
			t.Errorf("the log has grown from %d to %d", before, after)
		}
	}
	encoded, err := fsm.Encode(push("direct"))
	must(t, err)
	for _, n := range without(nodes, leader) {
		if _, err := n.cluster.ApplyLocal(t.Context(), fsm.Request{Command: encoded}); errdef.ReasonOf(err) != errdef.NotLeader {
			t.Errorf("a follower took a command: %v", err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := leader.cluster.Apply(ended, push("late")); errdef.ReasonOf(err) != errdef.Canceled {
		t.Errorf("got %v, want %s", err, errdef.Canceled)
	}
}

// A command that was submitted and not committed has no known outcome, whether the leader or a follower submitted it.
func TestOutcomeUnknown(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.apply = func(ctx context.Context, c *Cluster, request fsm.Request) (catalog.LogIndex, error) {
		if _, err := c.ApplyLocal(ctx, request); err != nil {
			return 0, err
		}
		return 0, errdef.Wrap(errdef.Deadline, context.DeadlineExceeded, "the answer was lost")
	}
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	leader := f.leader(nodes...)
	follower := without(nodes, leader)[0]
	_, err := follower.cluster.Apply(t.Context(), push("answer-lost"))
	if errdef.ReasonOf(err) != errdef.OutcomeUnknown {
		t.Errorf("got %v, want %s", err, errdef.OutcomeUnknown)
	}
	leader.hasTags("answer-lost")

	for _, n := range without(nodes, leader) {
		must(t, n.cluster.transport.Close())
	}
	// Until its lease ends the leader takes the command; it can never commit it.
	_, err = leader.cluster.Apply(t.Context(), push("never-committed"))
	if errdef.ReasonOf(err) != errdef.OutcomeUnknown || !errors.Is(err, raft.ErrLeadershipLost) {
		t.Errorf("got %v, want %s", err, errdef.OutcomeUnknown)
	}
}

func TestApplyError(t *testing.T) {
	for err, want := range map[error]errdef.Reason{
		raft.ErrNotLeader:                    errdef.NotLeader,
		raft.ErrLeadershipTransferInProgress: errdef.NotLeader,
		raft.ErrEnqueueTimeout:               errdef.Overloaded,
		raft.ErrLeadershipLost:               errdef.OutcomeUnknown,
		raft.ErrRaftShutdown:                 errdef.OutcomeUnknown,
		raft.ErrAbortedByRestore:             errdef.OutcomeUnknown,
		context.DeadlineExceeded:             errdef.OutcomeUnknown,
		errors.New("disk"):                   errdef.OutcomeUnknown,
	} {
		if got := errdef.ReasonOf(applyError(err)); got != want {
			t.Errorf("%v is %s, want %s", err, got, want)
		}
	}
}

// A leader that shuts down hands over: the others lead on in the next term, without waiting for an election timeout,
// and know that it left.
func TestShutdownHandsOver(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	leader := f.leader(nodes...)
	term, id := leader.cluster.Status().Term, leader.cluster.Self()
	leader.stop()
	rest := without(nodes, leader)
	if a, b := rest[0].cluster.raft.State(), rest[1].cluster.raft.State(); a != raft.Leader && b != raft.Leader {
		t.Errorf("nobody leads when the leader is gone: %s, %s", a, b)
	}
	started := time.Now()
	if _, err := rest[0].cluster.Apply(t.Context(), push("handed-over")); err != nil {
		t.Errorf("a write right after the shutdown: %v", err)
	}
	t.Logf("written %s after the shutdown", time.Since(started))
	if got := rest[0].cluster.Status().Term; got != term+1 {
		t.Errorf("the term went from %d to %d", term, got)
	}
	for _, n := range rest {
		f.eventually(n.config.Name+" knows that the leader left", func() error {
			m, ok := n.cluster.Member(id)
			if !ok || m.State != StateLeft || m.Role != RoleVoter {
				return errdef.New(errdef.NotReady, "it is %+v", m)
			}
			return nil
		})
	}
	leader.start()
	f.waitReady(leader)
	leader.hasTags("handed-over")
	must(t, leader.cluster.Shutdown(t.Context()))
	must(t, leader.cluster.Shutdown(t.Context())) // the second call does nothing
	if _, err := leader.cluster.Apply(t.Context(), push("too-late")); err == nil {
		t.Error("a node that was shut down took a command")
	}
	leader.detach()
}

// Whatever the state machine refuses commands with counts as decided, so that a retry returns it; what this package says
// by itself does not.
func TestDecided(t *testing.T) {
	commands, cat, refusals := catalogtest.NewCommands(1), catalog.New(), map[errdef.Reason]bool{}
	for index := range catalog.LogIndex(3000) {
		err := cat.Apply(catalog.Entry{Index: index + 1, Command: commands.Next()})[0].Err
		refusals[errdef.ReasonOf(err)] = true
		if !decided(err) {
			t.Fatalf("entry %d was decided: %v", index+1, err)
		}
	}
	if len(refusals) < 4 {
		t.Errorf("only %v; the test has lost its meaning", refusals)
	}
	for _, reason := range []errdef.Reason{
		errdef.NoQuorum, errdef.NotLeader, errdef.OutcomeUnknown, errdef.RequestExpired, errdef.Overloaded,
		errdef.Unavailable, errdef.ClusterMismatch, errdef.Deadline, errdef.Canceled, errdef.Internal,
	} {
		if decided(errdef.New(reason, "anything")) {
			t.Errorf("%s says nothing about an earlier attempt", reason)
		}
	}
}
