package cluster

import (
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A node that has voted in a term takes no entry of an earlier one any more. With the planted bug it does: a heartbeat of
// term 5, handled beside raft's main goroutine (issue 695), is on its way to the disk while the node votes in term 6, and sets the
// node back to term 5 when it is there. The leader of term 5 then commits with its help what the leader of term 6 lacks.
func TestHeartbeatsDoNotRaceVotes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		racing, breaks bool
	}{{"remedy", false, false}, {"planted bug", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			at, disk := voterInTerm4(t, c.racing)
			old, candidate := testTransport(t, testIdentity(t, "old", "x")), testTransport(t, testIdentity(t, "candidate", "x"))

			heard := make(chan error, 1)
			go func() {
				beat := heartbeat()
				beat.Term, beat.ID, beat.Addr = 5, []byte("old"), []byte(old.LocalAddr())
				heard <- old.AppendEntries("voter", at, beat, &raft.AppendEntriesResponse{})
			}()
			<-disk.writing // the term of the heartbeat
			voted := make(chan *raft.RequestVoteResponse, 1)
			go func() { voted <- requestVote(t, candidate, at) }()
			var vote *raft.RequestVoteResponse
			behind := 300 * time.Millisecond // time enough to see a vote that does not wait
			if c.racing {
				behind = patience
			}
			select {
			case vote = <-voted: // beside the heartbeat
			case <-time.After(behind):
			}
			close(disk.goOn)
			must(t, <-heard)
			if vote == nil {
				vote = <-voted
			}
			if !vote.Granted || vote.Term != 6 {
				t.Fatalf("vote: %+v", vote)
			}

			late, answer := entry(), raft.AppendEntriesResponse{}
			late.Term, late.ID, late.Addr = 5, []byte("old"), []byte(old.LocalAddr())
			late.PrevLogEntry, late.PrevLogTerm = 1, 4
			late.Entries = []*raft.Log{{Index: 2, Term: 5, Type: raft.LogNoop}}
			must(t, old.AppendEntries("voter", at, late, &answer))
			if answer.Success != c.breaks {
				t.Errorf("after its vote in term 6, an entry of term 5 is acknowledged: %t", answer.Success)
			}
		})
	}
}

// requestVote is that of a candidate to whom the leadership is handed over: it need not wait until the leader is silent.
func requestVote(t *testing.T, candidate *transport, at raft.ServerAddress) *raft.RequestVoteResponse {
	ask := &raft.RequestVoteRequest{
		RPCHeader: raft.RPCHeader{
			ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("candidate"), Addr: []byte(candidate.LocalAddr()),
		},
		Term: 6, LastLogIndex: 1, LastLogTerm: 4, LeadershipTransfer: true,
	}
	answer := &raft.RequestVoteResponse{}
	if err := candidate.RequestVote("voter", at, ask, answer); err != nil {
		t.Errorf("request for a vote: %v", err)
	}
	return answer
}

// voterInTerm4 runs a voter of three whose disk takes its time over the first term it is given.
func voterInTerm4(t *testing.T, racing bool) (raft.ServerAddress, *heldStable) {
	t.Helper()
	own := testTransport(t, testIdentity(t, "voter", "x"))
	own.racing = racing
	store := raft.NewInmemStore()
	configuration := raft.Configuration{Servers: []raft.Server{
		{ID: "voter", Address: own.LocalAddr()}, {ID: "old", Address: "127.0.0.1:1"}, {ID: "candidate", Address: "127.0.0.1:2"},
	}}
	must(t, store.StoreLog(&raft.Log{
		Index: 1, Term: 4, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(configuration),
	}))
	must(t, store.SetUint64([]byte("CurrentTerm"), 4))
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger = "voter", newHCLogger(testLogger("voter"), "raft")
	conf.HeartbeatTimeout, conf.ElectionTimeout = time.Minute, time.Minute // it is no candidate itself
	disk := &heldStable{InmemStore: store, writing: make(chan struct{}), goOn: make(chan struct{})}
	running, err := raft.NewRaft(conf, &raft.MockFSM{}, store, disk, raft.NewInmemSnapshotStore(), own)
	must(t, err)
	go own.incoming.serve(&receiver{state: running, snapshot: func() position { return position{} }})
	t.Cleanup(func() { must(t, running.Shutdown().Error()) })
	return own.LocalAddr(), disk
}

// heldStable holds up the write of term 5.
type heldStable struct {
	*raft.InmemStore
	first         sync.Once
	writing, goOn chan struct{}
}

func (s *heldStable) SetUint64(key []byte, value uint64) error {
	if value == 5 {
		s.first.Do(func() {
			close(s.writing)
			<-s.goOn
		})
	}
	return s.InmemStore.SetUint64(key, value)
}
