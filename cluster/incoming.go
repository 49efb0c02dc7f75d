package cluster

import (
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// incoming hands this node's raft what other nodes send, in order, and mends what raft v1.8.0 takes amiss:
//
// It gives its vote to nobody but the voters of its own configuration, which may be older than the candidate's. When the vote of
// such a node is needed, there is no leader ever again (see elector).
//
// It compares what goes before new entries with its log alone, and not with the snapshot that stands for what the log does not
// have, unless the log is empty behind it (hashicorp/raft issue 86). So the leader goes back, to entries it has no more itself,
// and sends a snapshot that may be older than the follower's (see follow).
//
// It takes a snapshot that is older than what it has applied: its state goes back, and then it panics over entries that were
// in the snapshot before (see superseded).
type incoming struct {
	from   <-chan raft.RPC
	to     chan raft.RPC
	node   atomic.Pointer[receiver] // nil until raft runs: what comes is handed on as it is
	closed chan struct{}
	once   sync.Once
}

// receiver is the raft that takes what comes.
type receiver struct {
	configuration func() raft.Configuration // the latest
	applied       func() uint64
	logs          raft.LogStore
	snapshot      func() position // the newest one on this node's disk, restored or not
}

func receiverOf(running *raft.Raft, s *storage) *receiver {
	return &receiver{
		configuration: func() raft.Configuration { return running.GetConfiguration().Configuration() },
		applied:       running.AppliedIndex, logs: s.logs, snapshot: s.newest,
	}
}

// position is a place in the log.
type position struct{ index, term uint64 }

func newIncoming(from <-chan raft.RPC) *incoming {
	return &incoming{from: from, to: make(chan raft.RPC), closed: make(chan struct{})}
}

// serve hands on until close.
func (i *incoming) serve() {
	for {
		select {
		case rpc := <-i.from:
			i.handle(rpc)
		case <-i.closed:
			return
		}
	}
}

func (i *incoming) close() { i.once.Do(func() { close(i.closed) }) }

func (i *incoming) handle(rpc raft.RPC) {
	node := i.node.Load()
	if node == nil {
		i.hand(rpc)
		return
	}
	switch request := rpc.Command.(type) {
	case *raft.RequestPreVoteRequest:
		request.ID = node.elector(request.ID)
	case *raft.RequestVoteRequest:
		request.ID = node.elector(request.ID)
	case *raft.AppendEntriesRequest:
		node.follow(request)
	case *raft.InstallSnapshotRequest:
		if node.superseded(request) {
			_, err := io.Copy(io.Discard, rpc.Reader) // or the connection could not be used any more
			rpc.Respond(&raft.InstallSnapshotResponse{Term: request.Term, Success: true}, err)
			return
		}
		i.wait(rpc)
		return
	}
	i.hand(rpc)
}

func (i *incoming) hand(rpc raft.RPC) (taken bool) {
	select {
	case i.to <- rpc:
		return true
	case <-i.closed:
		return false // who sent it is told by the transport
	}
}

// wait hands on, and returns when raft has answered: how the next request is taken depends on it.
func (i *incoming) wait(rpc raft.RPC) {
	answer := make(chan raft.RPCResponse, 1)
	if !i.hand(raft.RPC{Command: rpc.Command, Reader: rpc.Reader, RespChan: answer}) {
		return
	}
	select {
	case response := <-answer:
		rpc.RespChan <- response
	case <-i.closed:
	}
}

// elector returns the id under which raft considers a candidate: its own, or where raft would not know it for a voter, that of one
// it knows. A candidate with a newer log has a newer configuration, and the log alone decides who is worth a vote: Raft counts on
// that (dissertation of D. Ongaro, section 4.2.2), and on pre-votes to keep removed nodes from disturbing a leader. Strangers do
// not come here: see handshake.
func (r *receiver) elector(candidate []byte) []byte {
	var voter []byte
	for _, server := range r.configuration().Servers {
		if server.Suffrage == raft.Voter {
			if voter = []byte(server.ID); string(voter) == string(candidate) {
				break
			}
		}
	}
	if voter == nil {
		return candidate
	}
	return voter
}

// follow lets raft take entries that go on from this node's snapshot, or from before its end, where the log lacks what goes
// before them: all that a snapshot stands for is committed, and the leader has the same.
func (r *receiver) follow(request *raft.AppendEntriesRequest) {
	newest := r.snapshot()
	before := position{request.PrevLogEntry, request.PrevLogTerm}
	if before.index == 0 || before.index > newest.index || newest.index > r.applied() { // the last: raft has not restored it
		return
	}
	err := r.logs.GetLog(before.index, &raft.Log{})
	if !errors.Is(err, raft.ErrLogNotFound) || before.index == newest.index && before.term != newest.term {
		return
	}
	known := slices.IndexFunc(request.Entries, func(entry *raft.Log) bool { return entry.Index > newest.index })
	if known < 0 {
		known = len(request.Entries)
	}
	request.Entries = request.Entries[known:]
	request.PrevLogEntry, request.PrevLogTerm = 0, 0 // raft then compares nothing
	agreed := newest.index
	if n := len(request.Entries); n > 0 {
		agreed = request.Entries[n-1].Index
	}
	// Behind these entries this node may have others, which nobody has compared, and raft commits up to the end of its log.
	request.LeaderCommitIndex = min(request.LeaderCommitIndex, agreed)
}

// superseded tells whether a snapshot holds nothing that this node has not applied. Its sender has not heard that an earlier one
// has arrived, or it is one that was long on its way.
func (r *receiver) superseded(request *raft.InstallSnapshotRequest) bool {
	return request.LastLogIndex <= r.applied()
}
