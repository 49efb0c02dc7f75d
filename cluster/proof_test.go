package cluster

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// lie is what State is made to say of one node.
type lie struct {
	of    *Cluster
	state func(*NodeState) error
}

// lies makes State say what is stored, nothing special at first.
func (f *fleet) lies() *atomic.Pointer[lie] {
	told := &atomic.Pointer[lie]{}
	f.state = func(c *Cluster) (NodeState, error) {
		state := c.State()
		if l := told.Load(); l != nil && l.of == c {
			return state, l.state(&state)
		}
		return state, nil
	}
	return told
}

func sayRetired(state *NodeState) error { state.Retired = true; return nil }

func sayNothing(*NodeState) error { return errdef.New(errdef.Unavailable, "planted: no answer") }

// Of three voters, one that was told to leave, and of which gossip does not know yet, is not counted on for the next one; nor
// is one that does not answer. A retired node is not promoted.
func TestOrdersAskTheVoters(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	told := f.lies()
	voters := f.prepare(3, 3)
	f.start(voters...)
	leader := f.leader(voters...)
	first, second := without(voters, leader)[0], without(voters, leader)[1]
	for name, says := range map[string]func(*NodeState) error{"retired": sayRetired, "silent": sayNothing} {
		told.Store(&lie{first.cluster, says})
		err := leader.operate(Operation{Kind: OperationLeave, Node: second.config.Name})
		if errdef.ReasonOf(err) != errdef.QuorumAtRisk {
			t.Errorf("%s: the other one may leave, too: %v", name, err)
		}
		if err := leader.cluster.mayGo(t.Context(), raft.ServerID(second.cluster.Self())); errdef.ReasonOf(err) != errdef.QuorumAtRisk {
			t.Errorf("%s: the other one may be removed: %v", name, err)
		}
	}
	if err := second.cluster.identity.retired(); err != nil {
		t.Errorf("it was told to leave: %v", err)
	}
	told.Store(&lie{first.cluster, sayRetired})
	at := first.cluster.Addresses()
	wish := change{action: actionPromote, peer: at.Peer, node: raft.Server{
		ID: raft.ServerID(first.cluster.Self()), Address: raft.ServerAddress(at.Raft)}}
	if err := leader.cluster.confirm(t.Context(), wish); errdef.ReasonOf(err) != errdef.Removed {
		t.Errorf("a retired node is confirmed: %v", err)
	}
}

// A node that retired and was stopped before it was out is removed: it does not come back on its disk.
func TestRetiredNodeDiesOnTheWay(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	told := f.lies()
	voters := f.prepare(3, 3)
	f.start(voters...)
	leader := f.leader(voters...)
	gone, other := without(voters, leader)[0], without(voters, leader)[1]
	id := gone.cluster.Self()
	told.Store(&lie{other.cluster, sayNothing}) // so that it may not go yet
	must(t, gone.cluster.Retire(t.Context(), id))
	for _, n := range without(voters, gone) {
		f.eventually(n.config.Name+" knows that it is retired", func() error {
			if s, _ := n.cluster.gossip.sighting(id); !s.Retired {
				return errdef.New(errdef.NotReady, "it is %+v", s)
			}
			return nil
		})
	}
	gone.crash()
	if got := other.roles()[id]; got != RoleVoter {
		t.Fatalf("this test would not see that it goes: it is %q", got)
	}
	told.Store(nil)
	other.waitRole(id, "")
}

// lostName is a network in which the leader's resolver does not know one address any more.
type lostName struct {
	Network
	at atomic.Pointer[string]
}

func (l *lostName) Dial(ctx context.Context, address string) (net.Conn, error) {
	if at := l.at.Load(); at != nil && *at == address {
		return nil, &net.DNSError{Err: "planted", Name: address, IsNotFound: true}
	}
	return l.Network.Dial(ctx, address)
}

// A leader that cannot reach a member does not take that for its death while gossip sees it alive; once gossip has lost it, too,
// it does. A member that answers at its peer address only is alive.
func TestLeaderThatCannotReachAMember(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	told := f.lies()
	voters := f.prepare(3, 3)
	networks := map[*node]*lostName{}
	for _, n := range voters {
		networks[n] = &lostName{Network: machine{}}
		n.config.Environment.Network = networks[n]
	}
	f.start(voters...)
	leader := f.leader(voters...)
	away, other := without(voters, leader)[0], without(voters, leader)[1]
	id, at := away.cluster.Self(), away.config.Listen.Raft
	networks[leader].at.Store(&at)
	networks[other].at.Store(&at) // should it lead
	remove := Operation{Kind: OperationRemove, Node: string(id)}
	if err := leader.operate(remove); errdef.ReasonOf(err) != errdef.MemberAlive {
		t.Errorf("it answers at its peer address: %v", err)
	}
	told.Store(&lie{away.cluster, sayNothing})
	if err := leader.operate(remove); errdef.ReasonOf(err) != errdef.NotReady {
		t.Errorf("only the leader cannot reach it: %v", err)
	}
	if got := other.roles()[id]; got != RoleVoter {
		t.Fatalf("it is %q", got)
	}
	away.crash()
	leader.order(remove)
	other.waitRole(id, "")
}

// What was decided in one term is not carried out in another one: another leader may have changed the members in between.
func TestDecisionsEndWithTheirTerm(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	voters := f.prepare(2, 2)
	f.start(voters...)
	leader := f.leader(voters...)
	term, other := leader.cluster.Status().Term, without(voters, leader)[0]
	member := raft.Server{ID: raft.ServerID(other.cluster.Self()), Address: raft.ServerAddress(other.config.Listen.Raft)}
	for _, wish := range []change{
		{action: actionRemove, node: member}, {action: actionReplace, replaced: member.ID},
		{action: actionMove, node: raft.Server{ID: member.ID, Address: "127.0.0.1:1"}},
		{action: actionAdd, node: raft.Server{ID: "new", Address: "127.0.0.1:1", Suffrage: raft.Nonvoter}},
	} {
		if err := leader.cluster.carryOut(t.Context(), term-1, wish); errdef.ReasonOf(err) != errdef.NotLeader {
			t.Errorf("%s: %v", wish.action, err)
		}
	}
	if got := leader.cluster.servers(); len(got) != 2 || !containsServer(got, member) {
		t.Errorf("the members are %v", got)
	}
}

func containsServer(servers []raft.Server, member raft.Server) bool {
	_, found := view{servers: servers}.server(func(s raft.Server) bool { return s == member })
	return found
}

// A replacement that came as far as the promotion is finished when the order is repeated, whether the nonvoter was named or
// not; another nonvoter is left alone.
func TestReplaceIsRepeatable(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	voters := f.prepare(3, 3)
	f.start(voters...)
	leader := f.leader(voters...)
	gone := without(voters, leader)[0]
	id := gone.cluster.Self()
	first, second := f.add(3, freeAddress(), voters[0].config.Join...), f.add(3, freeAddress(), voters[0].config.Join...)
	f.start(first, second)
	leader.waitRole(first.cluster.Self(), RoleNonvoter)
	leader.waitRole(second.cluster.Self(), RoleNonvoter)
	gone.crash()
	f.promote(first, append(without(voters, gone), second)...)
	leader.order(Operation{Kind: OperationReplace, Node: string(id)})
	leader.waitRole(id, "")
	if got := leader.roles()[second.cluster.Self()]; got != RoleNonvoter {
		t.Errorf("the other nonvoter is a %s", got)
	}

	rest := append(without(voters, gone), first, second)
	leader = f.leader(rest...)
	gone = without(without(rest, leader), second)[0]
	id = gone.cluster.Self()
	gone.crash()
	f.promote(second, without(rest, gone)...)
	leader.order(Operation{Kind: OperationReplace, Node: string(id), By: second.config.Name})
	leader.waitRole(id, "")

	rest = without(rest, gone) // three voters, as many as there are to be
	leader = f.leader(rest...)
	gone = without(without(rest, leader), second)[0]
	if leader == second {
		gone = rest[0]
	}
	id = gone.cluster.Self()
	gone.crash()
	f.leader(without(rest, gone)...).order(Operation{Kind: OperationReplace, Node: string(id), By: second.config.Name})
	second.waitRole(id, "")
}

// promote is the first half of a replacement, by whoever leads.
func (f *fleet) promote(spare *node, others ...*node) {
	f.t.Helper()
	server := raft.Server{ID: raft.ServerID(spare.cluster.Self()), Address: raft.ServerAddress(spare.config.Listen.Raft)}
	f.eventually(spare.config.Name+" is promoted", func() error {
		leader := f.leader(append(others, spare)...)
		ctx, cancel := context.WithTimeout(f.t.Context(), patience)
		defer cancel()
		return leader.cluster.carryOut(ctx, leader.cluster.Status().Term, change{action: actionPromote, node: server})
	})
}

// gate stands between Raft and the state machine, and lets nothing through while it is closed.
type gate struct {
	Machine
	open atomic.Pointer[chan struct{}] // nil while nothing is held up
}

func (g *gate) ApplyBatch(logs []*raft.Log) []any {
	if opened := g.open.Load(); opened != nil {
		<-*opened
	}
	return g.Machine.ApplyBatch(logs)
}

// hold closes the gate and returns what opens it.
func (g *gate) hold() (open func()) {
	opened := make(chan struct{})
	g.open.Store(&opened)
	return func() { g.open.Store(nil); close(opened) }
}

// gated starts a node alone in its cluster, at level 1, behind a gate.
func gated(f *fleet) (*node, *gate) {
	g, alone := &gate{}, f.prepare(1, 1)[0]
	alone.config.FeatureLevel = catalog.LevelFirst
	alone.wrap = func(m Machine) Machine { g.Machine = m; return g }
	f.start(alone)
	return alone, g
}

// A build that does not understand a feature level is not let in when the entry that raises it is in the log and not applied.
func TestNobodyOldComesInDuringARaise(t *testing.T) {
	t.Parallel()
	alone, g := gated(newFleet(t))
	old := NodeState{ID: "old", FeatureLevel: catalog.LevelFirst}
	must(t, alone.cluster.admissible(t.Context(), old))
	open := g.hold()
	encoded, err := fsm.Encode(catalog.RaiseLevel{Level: catalog.LevelRequests})
	must(t, err)
	alone.cluster.raft.Apply(encoded, patience)
	time.AfterFunc(100*time.Millisecond, open)
	if err := alone.cluster.admissible(t.Context(), old); errdef.ReasonOf(err) != errdef.VersionTooOld {
		t.Errorf("got %v, want %s", err, errdef.VersionTooOld)
	}
}

// Below level 2, too, what came in one call is on its way at once.
func TestLevelOneDoesNotWaitForEach(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	alone, g := gated(f)
	requests := make([]fsm.Request, 5)
	for i := range requests {
		encoded, err := fsm.Encode(push(string(rune('a' + i))))
		must(t, err)
		requests[i].Command = encoded
	}
	open := g.hold()
	before := alone.cluster.Status().LastIndex
	done := make(chan []catalog.Result, 1)
	go func() { done <- alone.cluster.ApplyAllLocal(t.Context(), requests) }()
	f.eventually("all are in the log", func() error {
		if got := alone.cluster.Status().LastIndex; got < before+catalog.LogIndex(len(requests)) {
			return errdef.New(errdef.NotReady, "it went from %d to %d", before, got)
		}
		return nil
	})
	open()
	for i, result := range <-done {
		if result.Err != nil || result.Index <= before {
			t.Errorf("request %d: %+v", i, result)
		}
	}
}
