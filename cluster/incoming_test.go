package cluster

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// A voter that does not know yet that the candidate is one gives it its vote; here the third one is gone for ever. Without the
// remedy there is no leader ever again.
func TestVoterOfAnOlderConfigurationVotes(t *testing.T) {
	t.Parallel()
	p := newPromotion(t)
	running, _ := p.start(true)
	p.until("the promoted node leads", func() bool {
		return p.leader.State() == raft.Leader && running.AppliedIndex() >= promotionIndex
	})
	must(t, running.Shutdown().Error())
}

func TestVoterOfAnOlderConfigurationWithoutRemedy(t *testing.T) {
	t.Parallel()
	p := newPromotion(t)
	running, _ := p.start(false)
	refused := make(chan raft.Observation, 4)
	running.RegisterObserver(raft.NewObserver(refused, true, func(o *raft.Observation) bool {
		_, asked := o.Data.(raft.RequestPreVoteRequest)
		return asked
	}))
	for range cap(refused) {
		<-refused // it is asked again, so it has refused before
	}
	if p.leader.State() == raft.Leader {
		t.Fatal("raft gets by without the remedy now: elector in cluster/incoming.go may go")
	}
	must(t, running.Shutdown().Error())
}

// promotionIndex is where the leader became a voter, in a configuration that the follower has not been sent.
const promotionIndex = 2

func newPromotion(t *testing.T) *pair {
	p := newPair(t)
	p.config.Servers = append(p.config.Servers, raft.Server{ID: "gone", Address: "gone"})
	before := p.config.Clone()
	before.Servers[0].Suffrage = raft.Nonvoter // the leader, as yet
	disk := memoryDisk()
	p.keep(p.disk, 1, 1, entryOf(1, before))
	p.keep(disk, 1, 1, entryOf(1, before))
	p.keep(disk, 1, promotionIndex, entryOf(promotionIndex, p.config))
	p.lead(disk, 1)
	return p
}

// A follower whose log goes on right behind its snapshot, with an entry that the leader has not, is sent what the leader has
// instead. Without the remedy the leader goes back to before its own log, and sends an older snapshot, for ever.
func TestFollowerGoesOnFromItsSnapshot(t *testing.T) {
	t.Parallel()
	p := newFurther(t)
	running, _ := p.start(true)
	p.until("the follower has the leader's log", func() bool {
		return running.AppliedIndex() == p.leader.AppliedIndex() && running.AppliedIndex() > furtherIndex
	})
	if n := p.received.Load(); n > 0 {
		t.Errorf("%d snapshots received, want none", n)
	}
	must(t, running.Shutdown().Error())
}

func TestFollowerGoesOnFromItsSnapshotWithoutRemedy(t *testing.T) {
	t.Parallel()
	p := newFurther(t)
	running, _ := p.start(false)
	p.until("the follower is sent an older snapshot again", func() bool { return p.received.Load() >= 3 })
	if running.AppliedIndex() >= furtherIndex {
		t.Fatal("raft gets by without the remedy now: follow in cluster/incoming.go may go")
	}
	must(t, running.Shutdown().Error())
}

// furtherIndex is that of the follower's snapshot, which the leader has as an entry.
const furtherIndex = 8

func newFurther(t *testing.T) *pair {
	p := newPair(t)
	p.snapshot(p.disk, furtherIndex, 2)
	p.received.Store(0)
	p.keep(p.disk, 3, furtherIndex+1, nil)
	disk := memoryDisk()
	p.snapshot(disk, furtherIndex-2, 2)
	for index := uint64(furtherIndex - 3); index <= furtherIndex; index++ {
		p.keep(disk, 2, index, nil)
	}
	p.keep(disk, 4, furtherIndex+1, nil)
	p.lead(disk, 4)
	return p
}

// entries returns those of one term.
func entries(term, from, to uint64) (made []*raft.Log) {
	for index := from; index <= to; index++ {
		made = append(made, &raft.Log{Index: index, Term: term})
	}
	return made
}

func TestFollow(t *testing.T) {
	t.Parallel()
	logs := raft.NewInmemStore()
	must(t, logs.StoreLogs(entries(1, 3, 4))) // then a gap, up to the snapshot
	must(t, logs.StoreLogs(entries(2, 11, 13)))
	for _, c := range []struct {
		name                   string
		before                 position
		entries                []*raft.Log
		commit, applied        uint64
		wantBefore, wantCommit uint64
		wantEntries            int
	}{
		{"behind the snapshot", position{12, 2}, entries(2, 13, 14), 14, 10, 12, 14, 2},
		{"in the log before the gap", position{3, 1}, entries(1, 4, 5), 5, 10, 3, 5, 2},
		{"from the snapshot", position{10, 2}, entries(2, 11, 12), 12, 10, 0, 12, 2},
		{"from the snapshot, more committed", position{10, 2}, entries(2, 11, 12), 20, 11, 0, 12, 2},
		{"from the snapshot, nothing new", position{10, 2}, nil, 20, 10, 0, 10, 0},
		{"into the snapshot and beyond", position{7, 1}, entries(2, 8, 12), 20, 10, 0, 12, 2},
		{"into the snapshot", position{7, 1}, entries(1, 8, 9), 20, 10, 0, 10, 0},
		{"another snapshot", position{10, 1}, entries(2, 11, 12), 12, 10, 10, 12, 2},
		{"not restored yet", position{10, 2}, entries(2, 11, 12), 12, 9, 10, 12, 2},
		{"a heartbeat", position{0, 0}, nil, 0, 10, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := &receiver{
				applied: func() uint64 { return c.applied }, logs: logs, snapshot: func() position { return position{10, 2} },
			}
			request := &raft.AppendEntriesRequest{
				PrevLogEntry: c.before.index, PrevLogTerm: c.before.term, Entries: c.entries, LeaderCommitIndex: c.commit,
			}
			r.follow(request)
			if request.PrevLogEntry != c.wantBefore || len(request.Entries) != c.wantEntries || request.LeaderCommitIndex != c.wantCommit {
				t.Errorf("entry before %d, %d entries, commit %d; want %d, %d, %d", request.PrevLogEntry, len(request.Entries),
					request.LeaderCommitIndex, c.wantBefore, c.wantEntries, c.wantCommit)
			}
			if n := len(request.Entries); n > 0 && request.Entries[n-1] != c.entries[len(c.entries)-1] {
				t.Error("the last entry is another one")
			}
		})
	}
}

// A snapshot that holds nothing new is taken off the connection and answered, and raft never sees it. While raft takes one in,
// what comes behind it waits.
func TestSnapshotsOnTheirWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testSnapshotsOnTheirWay)
}

func testSnapshotsOnTheirWay(t *testing.T) {
	sent := make(chan raft.RPC)
	comes := newIncoming(sent)
	comes.node.Store(&receiver{applied: func() uint64 { return 10 }})
	defer comes.close()
	go comes.serve()
	send := func(index uint64, from io.Reader) <-chan raft.RPCResponse {
		answer := make(chan raft.RPCResponse, 1)
		sent <- raft.RPC{Command: &raft.InstallSnapshotRequest{LastLogIndex: index, Term: 7}, Reader: from, RespChan: answer}
		return answer
	}

	content := strings.NewReader("snapshot")
	answer := <-send(10, content)
	response, ok := answer.Response.(*raft.InstallSnapshotResponse)
	if !ok || !response.Success || response.Term != 7 || answer.Error != nil || content.Len() != 0 {
		t.Errorf("an old snapshot: %+v, %v, %d bytes left", answer.Response, answer.Error, content.Len())
	}
	broken := errors.New("the connection is broken")
	if answer := <-send(9, io.MultiReader(content, iotest.ErrReader(broken))); !errors.Is(answer.Error, broken) {
		t.Errorf("an old snapshot over a broken connection: %v", answer.Error)
	}

	installed := send(11, nil)
	installing := <-comes.to
	next := make(chan (<-chan raft.RPCResponse), 1)
	go func() { next <- send(12, nil) }()
	synctest.Wait()
	select {
	case <-comes.to:
		t.Fatal("raft was handed the next one meanwhile")
	case <-next:
		t.Fatal("the next one was taken meanwhile")
	default:
	}
	installing.Respond("installed", nil)
	if answer := <-installed; answer.Response != "installed" {
		t.Errorf("answer %v", answer.Response)
	}
	later := <-comes.to
	later.Respond("installed later", nil)
	if answer := <-<-next; answer.Response != "installed later" {
		t.Errorf("answer %v", answer.Response)
	}
}

// A snapshot of what was applied long ago takes nothing back. Without the remedy the state goes back to it; should the log not
// have all that is behind it, raft panics over the next commit.
func TestOlderSnapshotTakesNothingBack(t *testing.T) {
	t.Parallel()
	if applied := appliedAfterOlderSnapshot(t, true); applied != furtherIndex {
		t.Errorf("applied up to %d, want %d", applied, furtherIndex)
	}
}

func TestOlderSnapshotWithoutRemedy(t *testing.T) {
	t.Parallel()
	if applied := appliedAfterOlderSnapshot(t, false); applied >= furtherIndex {
		t.Fatal("raft gets by without the remedy now: superseded in cluster/incoming.go may go")
	}
}

func appliedAfterOlderSnapshot(t *testing.T, remedies bool) uint64 {
	p := newPair(t)
	p.snapshot(p.disk, furtherIndex, 2)
	running, _ := p.start(remedies)
	older := memoryDisk()
	p.snapshot(older, furtherIndex-2, 2)
	listed, err := older.Snapshots.List()
	must(t, err)
	meta, content, err := older.Snapshots.Open(listed[0].ID)
	must(t, err)
	answer := &raft.InstallSnapshotResponse{}
	must(t, p.links["leader"].InstallSnapshot("follower", "follower", &raft.InstallSnapshotRequest{
		RPCHeader:       raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("leader"), Addr: []byte("leader")},
		SnapshotVersion: raft.SnapshotVersionMax, Term: 1_000_000, LastLogIndex: meta.Index, LastLogTerm: meta.Term, Size: meta.Size,
		Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex,
	}, answer, content))
	if !answer.Success {
		t.Error("the snapshot was refused, and would be sent again")
	}
	applied := running.AppliedIndex()
	must(t, running.Shutdown().Error())
	return applied
}
