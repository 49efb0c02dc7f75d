package cluster

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/errdef"
)

// A host without power does not refuse: what is sent there is lost. To find that out takes all of a dial's time, which is more
// than a call's.
func TestSilentNonvoterIsRemoved(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	silence := &silentHost{Network: machine{}}
	nodes := f.prepare(2, 1)
	lone, other := nodes[0], nodes[1]
	lone.config.Join, other.config.Join = nil, []string{lone.config.Listen.Gossip}
	lone.buriesSoon()
	lone.config.Environment.Network = silence
	f.start(lone)
	f.start(other)
	lone.waitRole(other.cluster.Self(), RoleNonvoter)
	id, at := other.cluster.Self(), other.config.Listen.Raft
	silence.at.Store(&at)
	other.crash()
	lone.waitRole(id, "")
}

// silentHost is a network in which one address does not even refuse.
type silentHost struct {
	Network
	at atomic.Pointer[string]
}

func (s *silentHost) Dial(ctx context.Context, address string) (net.Conn, error) {
	if at := s.at.Load(); at != nil && *at == address {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Network.Dial(ctx, address)
}

// prepareWithSpare makes three voters and a nonvoter, all ready, that bury their dead soon.
func (f *fleet) prepareWithSpare() (voters []*node, spare *node) {
	f.t.Helper()
	voters = f.prepare(3, 3)
	for _, n := range voters {
		n.buriesSoon()
	}
	f.start(voters...)
	spare = f.add(3, freeAddress(), voters[0].config.Join...)
	spare.buriesSoon()
	f.start(spare)
	voters[0].waitRole(spare.cluster.Self(), RoleNonvoter)
	return voters, spare
}

func (n *node) buriesSoon() {
	n.config.DeadVoterAfter, n.config.Steady = 2*time.Second, 500*time.Millisecond
}

// A voter that stays dead is replaced by the nonvoter, and what it held is forgotten. Should it return after all, with its
// disk, it is a nonvoter. There are never fewer than three voters on the way.
func TestDeadVoterIsReplaced(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	voters, spare := f.prepareWithSpare()
	gone := without(voters, f.leader(voters...))[0]
	rest := append(without(voters, gone), spare)
	id := gone.cluster.Self()
	command := push("kept")
	command.Holder = id
	voters[0].apply(command)

	gone.crash()
	f.eventually("the spare is a voter and the dead node is gone", func() error {
		roles := rest[0].roles()
		voting := 0
		for _, role := range roles {
			if role == RoleVoter {
				voting++
			}
		}
		if voting < 3 {
			t.Errorf("there are %d voters on the way: %v", voting, roles)
		}
		if roles[spare.cluster.Self()] != RoleVoter || roles[id] != "" {
			return errdef.New(errdef.NotReady, "roles are %v", roles)
		}
		return nil
	})
	if blob, ok := rest[0].catalog.Snapshot().Blob(digest.FromString("kept")); !ok || len(blob.Holders) != 0 {
		t.Errorf("holders are %v; the dead node is no member any more", blob.Holders)
	}

	gone.start()
	f.waitReady(gone)
	if got := gone.cluster.Self(); got != id {
		t.Errorf("the node came back as %s with the disk of %s", got, id)
	}
	rest[0].waitRole(id, RoleNonvoter)
	gone.write("back")
	f.sameDigest(append(rest, gone)...)
}

// A dead nonvoter is removed, too.
func TestDeadNonvoterIsRemoved(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	voters, spare := f.prepareWithSpare()
	id := spare.cluster.Self()
	spare.crash()
	voters[0].waitRole(id, "")
}

// A voter that gossip believes dead, and that answers Raft, stays. The planted bug, a leader without a record of its own,
// wants to remove it; the handshake still stands in the way; and without that, too, this test would see it go.
func TestGossipAloneRemovesNobody(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	voters, spare := f.prepareWithSpare()
	leader := f.leader(voters...)
	silent := without(voters, leader)[0]
	id := silent.cluster.Self()
	for _, n := range append(without(voters, silent), spare) { // gossip brings no better news of it
		n.cluster.gossip.deaf(id)
	}
	term := leader.cluster.Status().Term
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for began := time.Now(); time.Since(began) < 3*leader.config.DeadVoterAfter; <-ticker.C {
		if got := leader.roles()[id]; got != RoleVoter {
			t.Fatalf("the voter is %q while it answers heartbeats", got)
		}
		if now := leader.cluster.Status().Term; now != term { // another leader has just begun to watch
			term, began = now, time.Now()
			leader = f.leader(without(voters, silent)...)
		}
	}

	var v view
	var wish change
	f.eventually("without a record of its own the leader wants to remove the voter", func() error {
		v = leader.cluster.view()
		v.expect = 2 // as if the spare had taken the place
		v.heard[raft.ServerID(id)] = contact{last: v.now.Add(-time.Hour), failed: true}
		wishes := v.changes() // none while another voter is slow to answer
		at := slices.IndexFunc(wishes, func(wish change) bool { return wish.action == actionRemove })
		if at < 0 {
			return errdef.New(errdef.NotReady, "it wants %v", wishes)
		}
		wish = wishes[at]
		return nil
	})
	if err := leader.cluster.confirm(t.Context(), wish); errdef.ReasonOf(err) != errdef.MemberAlive {
		t.Errorf("the node is asked before it goes: %v, want %s", err, errdef.MemberAlive)
	}
	must(t, leader.cluster.carryOut(t.Context(), v.term, wish))
	if got := leader.roles()[id]; got == RoleVoter {
		t.Error("this test would not see that a voter goes")
	}
}

// Who is new to a leader has the whole time, and a late word about who is gone counts for nothing.
func TestContacts(t *testing.T) {
	t.Parallel()
	a, b := voter("a"), voter("b")
	c := &contacts{}
	failed := errdef.New(errdef.Unavailable, "no answer")
	c.note("a", failed) // of a leadership that is over
	first := c.follow(1, []raft.Server{a, b})
	if first["a"].last.IsZero() || !first["a"].since.IsZero() {
		t.Errorf("a new member begins as %+v", first["a"])
	}
	c.note("a", nil)
	c.note("b", nil)
	c.note("b", failed)
	second := c.follow(1, []raft.Server{a, b})
	if !second["a"].last.After(first["a"].last) || second["a"].since.IsZero() || second["a"].failed {
		t.Errorf("after an answer: %+v", second["a"])
	}
	if second["b"].last.IsZero() || !second["b"].since.IsZero() || !second["b"].failed {
		t.Errorf("after an answer and a failure: %+v", second["b"])
	}
	if third := c.follow(1, []raft.Server{a}); len(third) != 1 {
		t.Errorf("who is removed is forgotten: %v", third)
	}
	if fourth := c.follow(2, []raft.Server{a}); !fourth["a"].last.After(second["a"].last) {
		t.Error("a new leadership begins a new record")
	}
}
