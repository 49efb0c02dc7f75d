package cluster

import (
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/internal/errdef"
)

// entry is an append that carries the log.
func entry() *raft.AppendEntriesRequest {
	request := heartbeat()
	request.LeaderCommitIndex = 1
	return request
}

// answering serves a transport's calls until the test ends.
func answering(t *testing.T, tr *transport) {
	t.Helper()
	ended := t.Context().Done()
	go func() {
		for {
			select {
			case rpc := <-tr.NetworkTransport.Consumer():
				rpc.Respond(&raft.AppendEntriesResponse{}, nil)
			case <-ended:
				return
			}
		}
	}()
}

// An append to a node that is away succeeds as soon as it is back; a heartbeat fails at once, as it must: the leader
// counts them.
func TestAppendWaitsForReturn(t *testing.T) {
	t.Parallel()
	sender, id := testTransport(t, testIdentity(t, "a", "x")), testIdentity(t, "b", "x")
	first := testTransport(t, id)
	at := first.LocalAddr()
	must(t, first.Close())

	err := sender.AppendEntries("b", at, heartbeat(), &raft.AppendEntriesResponse{})
	if errdef.ReasonOf(err) != errdef.Unavailable {
		t.Fatalf("heartbeat: %v, want UNAVAILABLE", err)
	}
	follow(sender, func() bool { return true })
	appended := make(chan error, 1)
	go func() { appended <- sender.AppendEntries("b", at, entry(), &raft.AppendEntriesResponse{}) }()
	select {
	case err := <-appended:
		t.Fatalf("the append did not wait: %v", err)
	case <-time.After(3 * returnInterval):
	}
	cfg := Config{
		Listen: Addresses{Raft: string(at)}, Timings: Timings{}.complete(), Environment: Environment{Network: machine{}},
	}
	back, err := openTransport(&cfg, id, slog.New(slog.DiscardHandler))
	must(t, err)
	defer func() { must(t, back.Close()) }()
	answering(t, back)
	select {
	case err := <-appended:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("the node is back, and the append still waits")
	}
}

func follow(tr *transport, follows func() bool) {
	any := func(_ raft.ServerID, _ raft.ServerAddress, term uint64) bool {
		return term == heartbeat().Term && follows()
	}
	tr.follows.Store(&any)
}

// Nobody waits for a node that is no follower any more, nor for one whose address another node took.
func TestAppendStopsWaiting(t *testing.T) {
	t.Parallel()
	sender := testTransport(t, testIdentity(t, "a", "x"))
	gone := testTransport(t, testIdentity(t, "b", "x"))
	at := gone.LocalAddr()
	other := testTransport(t, testIdentity(t, "c", "x"))
	var follows atomic.Bool
	follows.Store(true)
	follow(sender, follows.Load)
	err := sender.AppendEntries("b", other.LocalAddr(), entry(), &raft.AppendEntriesResponse{})
	if errdef.ReasonOf(err) != errdef.ClusterMismatch {
		t.Errorf("another node at the address: %v, want CLUSTER_MISMATCH", err)
	}
	must(t, gone.Close())
	appended := make(chan error, 1)
	go func() { appended <- sender.AppendEntries("b", at, entry(), &raft.AppendEntriesResponse{}) }()
	follows.Store(false)
	select {
	case err := <-appended:
		if errdef.ReasonOf(err) != errdef.Unavailable {
			t.Errorf("got %v, want UNAVAILABLE", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the append still waits")
	}
}

// A call of an earlier term does not wait: the present one's carries the log.
func TestAppendOfAnEarlierTermGivesUp(t *testing.T) {
	t.Parallel()
	sender, id := testTransport(t, testIdentity(t, "a", "x")), testIdentity(t, "b", "x")
	gone := testTransport(t, id)
	at := gone.LocalAddr()
	must(t, gone.Close())
	follow(sender, func() bool { return true }) // in the term of heartbeat
	earlier := entry()
	earlier.Term--
	if err := sender.AppendEntries("b", at, earlier, &raft.AppendEntriesResponse{}); errdef.ReasonOf(err) != errdef.Unavailable {
		t.Errorf("append: %v", err)
	}

	f := newFleet(t)
	n := f.prepare(1, 1)[0]
	f.start(n)
	self, follows := n.cluster.servers()[0], followersOf(n.cluster.raft)
	if term := n.cluster.raft.CurrentTerm(); !follows(self.ID, self.Address, term) || follows(self.ID, self.Address, term-1) {
		t.Error("a leader leads in its own term, and in no other one")
	}
}
