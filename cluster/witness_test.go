package cluster

import (
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// A leader takes the word of a voter in its own term in place of a question, and of nobody else.
func TestWhoIsAWitness(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	leader := f.leader(nodes...)
	follower := without(nodes, leader)[0]
	_, err := leader.cluster.ReadIndexLocal(t.Context(), Witness{}) // the leader knows that it has committed in its term
	must(t, err)
	written := leader.write("seen")
	word := follower.cluster.witness()
	index, ok := leader.cluster.witnessed(word)
	if !ok || index < written {
		t.Errorf("the word of a voter: %d, %t; %d is written", index, ok, written)
	}
	for name, w := range map[string]Witness{
		"nobody":           {},
		"the leader":       leader.cluster.witness(),
		"a stranger":       {Node: "stranger", Term: word.Term},
		"an earlier term":  {Node: word.Node, Term: word.Term - 1},
		"a later term":     {Node: word.Node, Term: word.Term + 1},
		"no term":          {Node: word.Node},
		"a term of nobody": {Term: word.Term},
	} {
		if _, ok := leader.cluster.witnessed(w); ok {
			t.Errorf("%s counts as a witness", name)
		}
	}
	follower.cluster.reads.settled.Store(word.Term) // as one who has just lost the leadership
	if _, ok := follower.cluster.witnessed(leader.cluster.witness()); ok {
		t.Error("a follower gives an index")
	}
	if _, err := follower.cluster.ReadIndexLocal(t.Context(), leader.cluster.witness()); errdef.ReasonOf(err) != errdef.NotLeader {
		t.Errorf("a follower answered for the leader: %v", err)
	}
}

// A follower that asks and the leader are two of three voters: nobody else need answer.
func TestAFollowerThatAsksIsNotAsked(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	var cut atomic.Bool
	f.state = func(c *Cluster) (NodeState, error) {
		if cut.Load() {
			return NodeState{}, errdef.New(errdef.Unavailable, "cut")
		}
		return c.State(), nil
	}
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	leader := f.leader(nodes...)
	cut.Store(true)
	if _, err := leader.cluster.ReadIndexLocal(t.Context(), Witness{}); errdef.ReasonOf(err) != errdef.NotLeader {
		t.Errorf("the leader alone: %v", err)
	}
	for _, n := range without(nodes, leader) {
		f.eventually("a read through "+n.config.Name, func() error {
			_, err := n.cluster.ReadIndex(t.Context())
			return err
		})
	}
}

// A new leader takes no word before it knows that an entry of its own is committed: it does not know how far its predecessor
// got.
func TestNoWitnessForALeaderThatHasNotCommitted(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	leader := f.leader(nodes...)
	follower := without(nodes, leader)[0]
	_, err := leader.cluster.ReadIndexLocal(t.Context(), Witness{})
	must(t, err)
	word := follower.cluster.witness()
	leader.cluster.reads.settled.Store(word.Term - 1) // as after an election
	if _, ok := leader.cluster.witnessed(word); ok {
		t.Error("the word of a voter was taken")
	}
	_, err = leader.cluster.ReadIndexLocal(t.Context(), word)
	must(t, err)
	if _, ok := leader.cluster.witnessed(word); !ok {
		t.Error("the word of a voter was not taken after a round")
	}
}

func TestMajority(t *testing.T) {
	t.Parallel()
	servers := func(voters, nonvoters int) (all []raft.Server) {
		for i := range voters + nonvoters {
			s := raft.Server{ID: raft.ServerID('a' + rune(i))}
			if i >= voters {
				s.Suffrage = raft.Nonvoter
			}
			all = append(all, s)
		}
		return all
	}
	for _, c := range []struct {
		name              string
		voters, nonvoters int
		other             catalog.NodeID
		want              bool
	}{
		{"two of two", 2, 0, "b", true},
		{"two of three", 3, 0, "b", true},
		{"two of four", 4, 0, "b", false},
		{"two of five", 5, 0, "b", false},
		{"one and a nonvoter of two", 2, 1, "c", false},
		{"one and a stranger of three", 3, 0, "z", false},
		{"one, twice, of three", 3, 0, "a", false},
		{"one of one", 1, 0, "z", true},
	} {
		if got := majority(servers(c.voters, c.nonvoters), "a", c.other); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}
