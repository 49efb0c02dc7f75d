package cluster

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// A follower learns of a lone write at once, without waiting for raft's timer. The planted bug, a leader that leaves it to
// the timer, waits: that is how this test knows the difference.
func TestFollowersLearnOfALoneWrite(t *testing.T) {
	t.Parallel()
	const timer = 2 * time.Second // raft waits for it once to twice
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	for _, n := range nodes {
		n.config.Timings.Commit = timer
	}
	f.start(nodes...)
	median := func(count int, name string) time.Duration {
		leader := f.leader(nodes...)
		var took []time.Duration
		for i := range count {
			index := leader.write(fmt.Sprintf("%s-%d", name, i))
			acknowledged := time.Now()
			for _, follower := range without(nodes, leader) {
				_, err := follower.catalog.Wait(t.Context(), index)
				must(t, err)
			}
			took = append(took, time.Since(acknowledged))
		}
		slices.Sort(took)
		return took[count/2]
	}
	if took := median(11, "told"); took > timer/2 {
		t.Errorf("the followers learnt of a commit after %s", took)
	}
	for _, n := range nodes {
		commits := n.cluster.transport.commits
		commits.mutex.Lock()
		commits.muted = true
		commits.mutex.Unlock()
	}
	if took := median(3, "untold"); took < timer/2 {
		t.Errorf("without being told, they learnt of it after %s: raft does it by itself, cluster/commits.go may go", took)
	}
}

// A follower is told of a commit exactly when it has the entry, and nobody has told it yet.
func TestWhenAFollowerIsTold(t *testing.T) {
	t.Parallel()
	log := func(from uint64, count int) (entries []*raft.Log) {
		for i := range count {
			entries = append(entries, &raft.Log{Index: from + uint64(i), Term: 3})
		}
		return entries
	}
	for _, c := range []struct {
		name      string
		took      *raft.AppendEntriesRequest
		told      uint64
		committed uint64
		due       bool
	}{
		{"nothing is known of it", nil, 0, 5, false},
		{"it has the entry", &raft.AppendEntriesRequest{PrevLogEntry: 3, PrevLogTerm: 2, Entries: log(4, 2)}, 3, 5, true},
		{"it has more", &raft.AppendEntriesRequest{PrevLogEntry: 3, PrevLogTerm: 2, Entries: log(4, 3)}, 3, 5, true},
		{"it had it before", &raft.AppendEntriesRequest{PrevLogEntry: 5, PrevLogTerm: 3}, 3, 5, true},
		{"it has less", &raft.AppendEntriesRequest{PrevLogEntry: 3, PrevLogTerm: 2, Entries: log(4, 1)}, 3, 5, false},
		{"it knows", &raft.AppendEntriesRequest{PrevLogEntry: 3, PrevLogTerm: 2, Entries: log(4, 2)}, 5, 5, false},
		{"it knows of a later one", &raft.AppendEntriesRequest{PrevLogEntry: 8, PrevLogTerm: 3}, 7, 5, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := pipeline{known: knowledge{told: c.told}}
			if c.took != nil {
				p.known.acknowledge(c.took)
			}
			request := p.announce(c.committed)
			if due := request != nil; due != c.due {
				t.Fatalf("to be told: %t, want %t", due, c.due)
			}
			if !c.due {
				return
			}
			last, term := c.took.PrevLogEntry, c.took.PrevLogTerm
			if n := len(c.took.Entries); n > 0 {
				last, term = c.took.Entries[n-1].Index, c.took.Entries[n-1].Term
			}
			if request.PrevLogEntry != last || request.PrevLogTerm != term || len(request.Entries) > 0 ||
				request.LeaderCommitIndex != c.committed {
				t.Errorf("told %+v", request)
			}
			if p.announce(c.committed) != nil {
				t.Error("it is told twice")
			}
		})
	}
}

// fakePipeline is a pipeline of raft's whose answers the test gives.
type fakePipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
}

func (f *fakePipeline) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	return nil, nil
}

func (f *fakePipeline) Consumer() <-chan raft.AppendFuture { return f.answers }

func (f *fakePipeline) Close() error { return nil }

// fakeAnswer is a request that was answered.
type fakeAnswer struct {
	raft.AppendFuture
	request *raft.AppendEntriesRequest
	success bool
}

func (f fakeAnswer) Request() *raft.AppendEntriesRequest { return f.request }

func (f fakeAnswer) Response() *raft.AppendEntriesResponse {
	return &raft.AppendEntriesResponse{Success: f.success}
}

// A follower is told once of what it has, however entries, answers and commits follow each other, and one at a time.
func TestCommitsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		commits, inner := newCommits(), &fakePipeline{answers: make(chan raft.AppendFuture)}
		sent, delivered := make(chan uint64, 1), make(chan struct{}) // unread, a second message at a time would be missed
		p := newPipeline(inner, commits, func(request *raft.AppendEntriesRequest) error {
			select {
			case sent <- request.LeaderCommitIndex:
			default:
				t.Error("a follower is told while it is being told")
			}
			<-delivered
			return nil
		})
		go commits.serve(ctx)
		sends := func(last, commit uint64) *raft.AppendEntriesRequest {
			request := &raft.AppendEntriesRequest{PrevLogEntry: last - 1, LeaderCommitIndex: commit,
				Entries: []*raft.Log{{Index: last}}}
			_, err := p.AppendEntries(request, nil)
			must(t, err)
			return request
		}
		answers := func(request *raft.AppendEntriesRequest, success bool) {
			inner.answers <- fakeAnswer{request: request, success: success}
			<-p.Consumer()
		}
		told := func(want uint64) {
			t.Helper()
			<-time.After(10 * burstPause) // of the bubble's clock
			select {
			case index := <-sent:
				if index != want {
					t.Fatalf("told of %d, not of %d", index, want)
				}
			default:
				if want != 0 {
					t.Fatalf("not told of %d", want)
				}
			}
		}
		fifth := sends(5, 4)
		commits.note(5, false) // by other followers
		told(0)
		answers(fifth, true) // late
		told(5)
		sixth, seventh := sends(6, 5), sends(7, 5)
		answers(sixth, true)
		answers(seventh, true)
		commits.note(7, false)
		told(0) // is being told of the fifth
		delivered <- struct{}{}
		told(7)
		delivered <- struct{}{}
		told(0)
		eighth := sends(8, 7)
		answers(eighth, false)
		commits.note(8, true)
		told(0)
		ninth, tenth := sends(9, 8), sends(10, 9) // which tells of the ninth
		answers(ninth, true)
		answers(tenth, true)
		commits.note(9, true)
		told(0)
		must(t, p.Close())
		commits.note(10, false)
		told(0)
	})
}
