package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/errdef"
)

// operate orders something through a node and returns the error.
func (n *node) operate(operation Operation) error {
	ctx, cancel := context.WithTimeout(n.fleet.t.Context(), patience)
	defer cancel()
	_, err := n.cluster.Operate(ctx, operation)
	return err
}

// order is operate, again until it works: what an operator would do whose cluster has no leader just now.
func (n *node) order(operation Operation) {
	n.fleet.t.Helper()
	n.fleet.eventually(fmt.Sprintf("%+v", operation), func() error { return n.operate(operation) })
}

// A living voter leaves: first the nonvoter takes its place, then it goes, whoever it is and through whomever it is asked.
// It stays up, says why it is not ready, takes no writes, and never comes back on its disk.
func TestLeave(t *testing.T) {
	t.Parallel()
	for _, who := range []string{"a follower, through another node", "the leader, through itself"} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			voters := f.prepare(3, 3)
			f.start(voters...)
			spare := f.add(3, freeAddress(), voters[0].config.Join...)
			f.start(spare)
			leader := f.leader(voters...)
			gone, through := leader, leader
			if who == "a follower, through another node" {
				gone, through = without(voters, leader)[0], spare
			}
			rest := append(without(voters, gone), spare)
			id := gone.cluster.Self()
			command := push("kept")
			command.Holder = id
			rest[0].apply(command)

			through.order(Operation{Kind: OperationLeave, Node: gone.config.Name})
			rest[0].waitRole(id, "")
			rest[0].waitRole(spare.cluster.Self(), RoleVoter)
			// A configuration counts as soon as it is in the log, the command before it once it is applied.
			f.eventually("the node holds nothing", func() error {
				blob, ok := rest[0].catalog.Snapshot().Blob(digest.FromString("kept"))
				if !ok || len(blob.Holders) != 0 {
					return errdef.New(errdef.NotReady, "holders are %v; the node has left", blob.Holders)
				}
				return nil
			})
			f.leader(rest...)
			rest[0].write("without-it")
			if err := gone.cluster.Ready(); errdef.ReasonOf(err) != errdef.Removed || !strings.Contains(err.Error(), "was told to leave") {
				t.Errorf("the node is ready: %v", err)
			}
			if _, err := gone.cluster.Apply(t.Context(), push("late")); errdef.ReasonOf(err) != errdef.Removed {
				t.Errorf("the node takes writes: %v", err)
			}
			f.eventually("the others see it retired", func() error {
				if m, _ := rest[0].cluster.Member(id); m.Role != RoleNone || m.State != StateRetired {
					return errdef.New(errdef.NotReady, "it is %+v", m)
				}
				return nil
			})
			gone.crash()
			if err := gone.open(); errdef.ReasonOf(err) != errdef.Removed {
				t.Errorf("it starts again on its disk: %v", err)
			}
			gone.wipe()
			f.start(gone)
			rest[0].waitRole(gone.cluster.Self(), RoleNonvoter)
		})
	}
}

// Dead members are removed and replaced at once, at an operator's word; the living are not.
func TestRemoveAndReplace(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	voters := f.prepare(3, 3)
	f.start(voters...)
	leader := f.leader(voters...)
	gone := without(voters, leader)[0]
	id := gone.cluster.Self()
	for _, kind := range []OperationKind{OperationRemove, OperationReplace} {
		err := leader.operate(Operation{Kind: kind, Node: gone.config.Name})
		if errdef.ReasonOf(err) != errdef.MemberAlive || !strings.Contains(err.Error(), "members leave") {
			t.Errorf("%s of a living member: %v", kind, err)
		}
	}
	gone.crash()
	if err := leader.operate(Operation{Kind: OperationReplace, Node: string(id)}); errdef.ReasonOf(err) != errdef.NotFound {
		t.Errorf("replaced by nobody: %v", err)
	}
	spare := f.add(3, freeAddress(), voters[0].config.Join...)
	f.start(spare)
	rest := append(without(voters, gone), spare)
	spare.order(Operation{Kind: OperationReplace, Node: string(id), By: spare.config.Name})
	leader.waitRole(spare.cluster.Self(), RoleVoter)
	leader.waitRole(id, "")
	spare.write("replaced")

	// Of three voters, one more may go; the one after that may not.
	leader = f.leader(rest...)
	second, last := without(rest, leader)[0], without(rest, leader)[1]
	secondID := second.cluster.Self()
	second.crash()
	last.order(Operation{Kind: OperationRemove, Node: string(secondID)})
	leader.waitRole(secondID, "")
	last.write("two-are-left")
	err := leader.operate(Operation{Kind: OperationLeave, Node: last.config.Name})
	if err != nil {
		t.Errorf("of two, one may leave: %v", err)
	}
	if err := leader.operate(Operation{Kind: OperationLeave, Node: leader.config.Name}); errdef.ReasonOf(err) != errdef.QuorumAtRisk {
		t.Errorf("the last voter leaves: %v", err)
	}
	leader.write("one-is-left")
}

// Names that are nobody's or several nodes' are refused, as is what would cost the quorum.
func TestRefusedOrders(t *testing.T) {
	v := view{
		self: "a", servers: []raft.Server{voter("a"), voter("b"), voter("c")},
		seen: sightings{
			"a": {State: StateAlive, metadata: metadata{Name: "n1"}}, "b": {State: StateDead, metadata: metadata{Name: "n2"}},
			"c": {State: StateAlive, metadata: metadata{Name: "n2"}},
		},
	}
	for text, want := range map[string]errdef.Reason{
		"n1": "", "b": "", "n2": errdef.UsageInvalid, "n3": errdef.NotFound, "": errdef.NotFound,
	} {
		if _, err := v.find(text); errdef.ReasonOf(err) != want {
			t.Errorf("find %q: %v, want %q", text, err, want)
		}
	}
	if err := v.enough(voter("b")); err != nil {
		t.Errorf("without the dead one: %v", err)
	}
	err := v.enough(voter("c"))
	if errdef.ReasonOf(err) != errdef.QuorumAtRisk || !strings.Contains(err.Error(), "2 voters are left, of which 1 answer") {
		t.Errorf("without a living one: %v", err)
	}
	v.servers = v.servers[:1]
	if err := v.enough(voter("a")); errdef.ReasonOf(err) != errdef.QuorumAtRisk {
		t.Errorf("without the last one: %v", err)
	}
}

// What the leader decides about members that were told to leave. a is the leader; three voters are expected.
func TestChangesOfTheRetired(t *testing.T) {
	gone := alive("x", "at-c")
	gone.Retired = true
	goneDead := gone
	goneDead.State = StateDead
	release := []change{{action: actionRelease, node: voter("c"), peer: "peer"}}
	abc := []raft.Server{voter("a"), voter("b"), voter("c")}
	now := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		name    string
		servers []raft.Server
		seen    sightings
		heard   map[raft.ServerID]contact
		want    []change
	}{
		{"it goes", abc, sightings{"b": alive("x", "at-b"), "c": gone}, nil, release},
		{"a nonvoter takes its place first", append(abc, nonvoter("d")),
			sightings{"b": alive("x", "at-b"), "c": gone, "d": alive("x", "at-d")}, nil,
			append([]change{{action: actionPromote, peer: "peer", node: voter("d")}}, release...)},
		{"then it goes", append(abc, voter("d"), nonvoter("e")),
			sightings{"b": alive("x", "at-b"), "c": gone, "d": alive("x", "at-d"), "e": alive("x", "at-e")}, nil, release},
		{"once gone, it is not added again", abc[:2], sightings{"b": alive("x", "at-b"), "c": gone}, nil, nil},
		{"it is needed", abc, sightings{"b": dead("x", "at-b"), "c": gone}, nil, nil},
		{"it died on the way: gossip alone does not remove it", abc, sightings{"b": alive("x", "at-b"), "c": goneDead}, nil, nil},
		{"it died on the way, and answers no heartbeats", abc, sightings{"b": alive("x", "at-b"), "c": goneDead},
			map[raft.ServerID]contact{"c": {last: now.Add(-time.Minute), failed: true}}, release},
		{"it died a moment ago", abc, sightings{"b": alive("x", "at-b"), "c": goneDead},
			map[raft.ServerID]contact{"c": {last: now, failed: true}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := view{self: "a", cluster: "x", expect: 3, servers: c.servers, seen: c.seen, heard: c.heard, now: now, silence: time.Second}
			got := v.changes()
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// The leadership goes where it is sent, and comes back; a survey tells how far all have come.
func TestTransferAndSurvey(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	for range 2 {
		to := without(nodes, f.leader(nodes...))[0]
		nodes[0].order(Operation{Kind: OperationTransfer, Node: to.config.Name})
		f.eventually(to.config.Name+" leads", func() error {
			if got := f.leader(nodes...); got != to {
				return errdef.New(errdef.NotReady, "%s leads", got.config.Name)
			}
			return nil
		})
		to.write("led-by-" + to.config.Name)
	}
	was := f.leader(nodes...)
	nodes[0].order(Operation{Kind: OperationTransfer})
	f.eventually("another one leads", func() error {
		if f.leader(nodes...) == was {
			return errdef.New(errdef.NotReady, "%s still leads", was.config.Name)
		}
		return nil
	})

	dead := without(nodes, f.leader(nodes...))[0]
	id := dead.cluster.Self()
	dead.crash()
	through := without(nodes, dead)[1]
	f.eventually("the survey tells", func() error {
		members, err := through.cluster.Survey(t.Context())
		if err != nil {
			return err
		}
		for _, m := range members {
			gone := m.ID == id
			if gone != (m.Applied == 0) || gone != (m.Silence > time.Second) {
				return errdef.New(errdef.NotReady, "%+v", m)
			}
		}
		return nil
	})
}

// raft hangs in a transfer to a node that is away (issue 696): no write is taken any more, and only the check ends that.
func TestHangingTransferEndsTheNode(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	fatal := make(chan error, 100)
	for _, n := range nodes {
		n.config.Timings.Transport = time.Second
		n.config.Fatal = func(err error) {
			select {
			case fatal <- err:
			default:
			}
		}
	}
	f.start(nodes...)
	leader := f.leader(nodes...)
	away := without(nodes, leader)[0]
	id, at := raft.ServerID(away.cluster.Self()), raft.ServerAddress(away.cluster.Addresses().Raft)
	away.crash()
	leader.write("it-misses-this")
	// The first that finds the replication waiting fills raft's channel to it; the next one's goroutine never gets through.
	hung := 0
	f.eventually("raft hangs in a transfer", func() error {
		err := leader.cluster.raft.LeadershipTransferToServer(id, at).Error()
		if hung++; !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			hung = 0
		}
		if hung < 20 {
			return errdef.New(errdef.NotReady, "%v (should raft have solved its issue 696, the check may go)", err)
		}
		return nil
	})
	if _, err := leader.cluster.Apply(t.Context(), push("refused")); err == nil {
		t.Error("raft takes writes")
	}
	select {
	case err := <-fatal:
		if !strings.Contains(err.Error(), "leadership transfer has hung") {
			t.Errorf("the node ends with %v", err)
		}
	case <-time.After(patience):
		t.Error("the node goes on without taking writes")
	}
}

// Only a refusal that lasts counts.
func TestTransfersRefused(t *testing.T) {
	start, busy := time.Unix(0, 0), raft.ErrLeadershipTransferInProgress
	x := &transfers{}
	x.refused.Store(true)
	for i, step := range []struct {
		err   error
		after time.Duration
		want  bool
	}{
		{busy, 0, false}, {busy, 10 * time.Second, false}, {busy, 11 * time.Second, true},
		{raft.ErrNotLeader, 12 * time.Second, false}, {busy, 30 * time.Second, false}, {busy, 39 * time.Second, false},
		{busy, 41 * time.Second, true}, {nil, 42 * time.Second, false},
	} {
		if got := x.hangs(step.err, start.Add(step.after), 10*time.Second); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
	if x.refused.Load() || !x.since.IsZero() {
		t.Errorf("after a write it still counts from %s", x.since)
	}
}
