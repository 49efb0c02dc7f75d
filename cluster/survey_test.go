package cluster

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/ocistern/ocistern/fsm/catalog"
)

// A leader, and others, that say nothing do not hold a survey up, though its caller has all the time: it tells what this node
// knows.
func TestSurveyOfTheSilent(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.survey = func(ctx context.Context) ([]Member, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	nodes := f.prepare(2, 1)
	leader, nonvoter := nodes[0], nodes[1]
	leader.config.Join, nonvoter.config.Join = nil, []string{leader.config.Listen.Gossip}
	f.start(leader)
	f.start(nonvoter)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	members, err := nonvoter.cluster.Survey(ctx)
	if err != nil || ctx.Err() != nil || len(members) != 2 || members[0].Leader || members[1].Leader {
		t.Errorf("members %+v, %v, %v", members, err, ctx.Err())
	}
}

// heldPeers answers no State before it is let on, and counts those that wait.
type heldPeers struct {
	Peers
	asked atomic.Int64
	on    chan struct{}
}

func (h *heldPeers) State(context.Context, string) (NodeState, error) {
	h.asked.Add(1)
	<-h.on
	return NodeState{}, nil
}

// However many nodes gossip remembers, not all are asked at a time, and those that are gone not at all.
func TestSurveyAsksFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := &heldPeers{on: make(chan struct{})}
		id := &identity{}
		id.now.Store(&record{ID: "self"})
		c := &Cluster{config: Config{Timings: Timings{}.complete()}, identity: id, peers: peers}
		var members []Member
		for i := range 5 * maxAsked {
			at := Addresses{Peer: "there"}
			members = append(members, Member{ID: catalog.NodeID(fmt.Sprint("old", i)), Role: RoleNone, State: StateDead, Addresses: at},
				Member{ID: catalog.NodeID(fmt.Sprint("voter", i)), Role: RoleVoter, State: StateDead, Addresses: at})
		}
		done := make(chan struct{})
		go func() { c.ask(t.Context(), members); close(done) }()
		synctest.Wait()
		if got := peers.asked.Load(); got != maxAsked {
			t.Errorf("%d were asked at a time, want %d", got, maxAsked)
		}
		close(peers.on)
		<-done
		if got := peers.asked.Load(); got != 5*maxAsked {
			t.Errorf("%d were asked, want the members, %d", got, 5*maxAsked)
		}
	})
}
