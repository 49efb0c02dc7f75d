package cluster

import (
	"io"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// incoming hands this node's raft what other nodes send, one request after the other, as raft takes them, and mends what raft
// v1.8.0 takes amiss:
//
// It gives its vote to nobody but the voters of its own configuration, which may be older than the candidate's. When the vote of
// such a node is needed, there is no leader ever again. And it remembers for whom it voted by the address (see elector).
//
// It compares what goes before new entries with its log alone, and not with the snapshot that stands for what the log does not
// have, unless the log is empty behind it (hashicorp/raft issue 86). So the leader goes back, to entries it has no more itself,
// and sends a snapshot that may be older than the follower's (see follow).
//
// It makes its own snapshot while it takes one (see turn).
//
// It takes a snapshot that is older than what it has applied: its state goes back, and then it panics over entries that were
// in the snapshot before (see superseded).
type incoming struct {
	from   <-chan raft.RPC
	to     chan raft.RPC
	closed chan struct{}
	once   sync.Once
}

func newIncoming(from <-chan raft.RPC) *incoming {
	return &incoming{from: from, to: make(chan raft.RPC), closed: make(chan struct{})}
}

func (i *incoming) close() { i.once.Do(func() { close(i.closed) }) }

// serve hands on until close.
func (i *incoming) serve(node *receiver) {
	for {
		select {
		case rpc := <-i.from:
			i.handle(node, rpc)
		case <-i.closed:
			return
		}
	}
}

func (i *incoming) handle(node *receiver, rpc raft.RPC) {
	command := rpc.Command
	switch request := command.(type) { // what was sent may belong to the sender still
	case *raft.RequestPreVoteRequest:
		mended := *request
		mended.RPCHeader = node.elector(request.RPCHeader)
		command = &mended
	case *raft.RequestVoteRequest:
		mended := *request
		mended.RPCHeader = node.candidate(request)
		command = &mended
	case *raft.AppendEntriesRequest:
		mended := *request
		node.follow(&mended)
		command = &mended
	case *raft.InstallSnapshotRequest:
		i.install(node, rpc, request)
		return
	}
	i.hand(node, rpc, command)
}

// install hands a snapshot on when no other one is made, unless it is superseded.
func (i *incoming) install(node *receiver, rpc raft.RPC, request *raft.InstallSnapshotRequest) {
	if request.Term >= node.CurrentTerm() { // or raft refuses it
		if !node.turn.await(sent, i.closed) {
			return
		}
		defer node.turn.end()
	}
	if !node.superseded(request) {
		i.hand(node, rpc, request)
		return
	}
	go func() { // ends with the connection
		_, err := io.Copy(io.Discard, rpc.Reader) // or the connection could not be used any more
		rpc.Respond(&raft.InstallSnapshotResponse{Term: request.Term, Success: true}, err)
	}()
}

// hand hands a request on and returns when raft has answered: how the next one is taken depends on what this one has changed.
func (i *incoming) hand(node *receiver, rpc raft.RPC, command any) {
	answer := make(chan raft.RPCResponse, 1)
	select {
	case i.to <- raft.RPC{Command: command, Reader: rpc.Reader, RespChan: answer}:
	case <-i.closed:
		return // who sent it is told by the transport
	}
	select {
	case response := <-answer:
		node.answered(command, response)
		rpc.RespChan <- response
	case <-i.closed:
	}
}

// position is a place in the log.
type position struct{ index, term uint64 }

// receiver is the raft that takes what comes. One goroutine uses it.
type receiver struct {
	state
	snapshot  func() position // the newest one on this node's disk, restored or not
	turn      *turn           // of who makes one
	installed struct {        // the one that was received last, and the term of the leader that sent it
		position
		by uint64
	}
}

// state is the part of raft that a receiver looks at.
type state interface {
	GetConfiguration() raft.ConfigurationFuture
	CurrentTerm() uint64
	CommitIndex() uint64
	AppliedIndex() uint64
}

// elector returns the header by which raft considers a candidate. Its id is that of a voter that raft knows, where it would not know
// the candidate for one: a candidate with a newer log has a newer configuration, and the log alone decides who is worth a vote.
// Raft counts on that (dissertation of D. Ongaro, section 4.2.2), and on pre-votes to keep removed nodes from disturbing a leader.
//
// Its address has the candidate's own id added. raft writes down the address for which it voted, and votes for it again in that
// term without a look at the log: it may be another node's by then. (By the address raft also lets a leader ask that it knows; one
// that has restarted is now refused like others, until nothing was heard of it for a while.)
func (r *receiver) elector(candidate raft.RPCHeader) raft.RPCHeader {
	header := named(candidate)
	for _, server := range r.GetConfiguration().Configuration().Servers {
		if server.Suffrage != raft.Voter {
			continue
		}
		if string(server.ID) == string(candidate.ID) {
			return named(candidate)
		}
		header.ID = []byte(server.ID)
	}
	return header
}

// candidate is elector for a vote. Who is told by a leader to take its place asks without a pre-vote, and is nobody unless raft knows
// it: it may have been removed since.
func (r *receiver) candidate(request *raft.RequestVoteRequest) raft.RPCHeader {
	if request.LeadershipTransfer {
		return named(request.RPCHeader)
	}
	return r.elector(request.RPCHeader)
}

func named(candidate raft.RPCHeader) raft.RPCHeader {
	candidate.Addr = slices.Concat(candidate.Addr, []byte("#"), candidate.ID)
	return candidate
}

// follow lets raft take entries that go on from this node's snapshot, or from before its end, although its log has not, or not the
// right ones, what goes before them: the snapshot stands for it. And it keeps raft from committing what nobody has compared: raft
// would commit up to the end of its log, which may reach further than this request (Raft, figure 2, rule 5 of AppendEntries).
func (r *receiver) follow(request *raft.AppendEntriesRequest) {
	compared := request.PrevLogEntry + uint64(len(request.Entries))
	newest := r.snapshot()
	if r.restored(newest) && r.covers(newest, request) {
		known := min(int(newest.index-request.PrevLogEntry), len(request.Entries))
		request.Entries = request.Entries[known:]
		request.PrevLogEntry, request.PrevLogTerm = 0, 0 // raft then compares nothing
		compared = max(compared, newest.index)
	}
	request.LeaderCommitIndex = min(request.LeaderCommitIndex, compared)
}

// covers tells whether a snapshot stands for what goes before a request, or for the beginning of its entries.
func (r *receiver) covers(newest position, request *raft.AppendEntriesRequest) bool {
	switch {
	case request.PrevLogEntry == 0 && len(request.Entries) == 0: // a heartbeat
		return false
	case request.PrevLogEntry > newest.index:
		return false
	case request.PrevLogEntry == newest.index:
		return request.PrevLogTerm == newest.term
	}
	for _, entry := range request.Entries {
		if entry.Index == newest.index {
			return entry.Term == newest.term
		}
	}
	return r.shared(newest, request.Term)
}

// superseded tells whether a snapshot holds nothing that this node has not applied: its sender has not heard that one has
// arrived, or it was long on its way.
func (r *receiver) superseded(request *raft.InstallSnapshotRequest) bool {
	newest, sent := r.snapshot(), position{request.LastLogIndex, request.LastLogTerm}
	if request.Term < r.CurrentTerm() || !r.restored(newest) || sent.index > r.AppliedIndex() {
		return false // raft refuses the leader of an older term
	}
	if sent.index == newest.index {
		return sent.term == newest.term
	}
	return r.shared(newest, request.Term)
}

// restored tells whether the newest snapshot is part of raft's state. It is not while one is installed, nor when that has failed.
func (r *receiver) restored(newest position) bool {
	return newest.index > 0 && newest.index <= r.AppliedIndex()
}

// shared tells whether a leader has all that a snapshot stands for: it is committed, or that leader has sent it. A snapshot that an
// operator restores (RestoreLocal) is not committed before others have it.
func (r *receiver) shared(newest position, leader uint64) bool {
	return r.CommitIndex() >= newest.index || r.installed.position == newest && r.installed.by == leader
}

// answered notes what raft has made of a request.
func (r *receiver) answered(command any, response raft.RPCResponse) {
	request, ok := command.(*raft.InstallSnapshotRequest)
	if !ok {
		return
	}
	if answer, ok := response.Response.(*raft.InstallSnapshotResponse); ok && answer.Success {
		r.installed.position, r.installed.by = position{request.LastLogIndex, request.LastLogTerm}, request.Term
	}
}
