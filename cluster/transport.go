package cluster

import (
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// pooledConnections are kept open to each peer.
const pooledConnections = 3

// transport is raft's network transport with six changes.
//
// Heartbeats take the normal queue: raft v1.8.0 would handle them beside its main goroutine and race it, and after a
// partition logs can diverge (hashicorp/raft issue 695). SetHeartbeatHandler therefore does nothing.
//
// Every connection names the node it is meant for (see addressed).
//
// What carries the log waits for a node that cannot be reached (see patiently).
//
// A pipeline takes all answers, also those that raft does not wait for any more (see pipeline).
//
// A follower is told of a commit when no entry follows (see commits).
//
// What other nodes send is mended before raft takes it (see incoming).
type transport struct {
	*raft.NetworkTransport
	stream   *stream
	racing   bool      // heartbeats race: a planted bug
	contacts *contacts // who answers heartbeats
	commits  *commits
	incoming *incoming
	// follows tells whether a node at an address is to be sent the log in a term; nil until Raft runs.
	follows atomic.Pointer[func(raft.ServerID, raft.ServerAddress, uint64) bool]
}

// raft looks these up by type assertion; without WithPreVote it would silently hold elections without pre-votes.
var (
	_ raft.Transport   = (*transport)(nil)
	_ raft.WithPreVote = (*transport)(nil)
	_ raft.WithClose   = (*transport)(nil)
)

// openTransport binds the Raft port and writes the addresses that were bound back to cfg.
func openTransport(cfg *Config, id *identity, logger *slog.Logger) (*transport, error) {
	s, err := listenStream(cfg, id, logger)
	if err != nil {
		return nil, err
	}
	cfg.Listen.Raft, cfg.Advertise.Raft = s.listener.Addr().String(), s.told
	t := newTransport(s, logger)
	t.racing = cfg.Environment.RacingHeartbeats
	return t, nil
}

func newTransport(s *stream, logger *slog.Logger) *transport {
	inner := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: s, MaxPool: pooledConnections, Timeout: s.timeout, Logger: newHCLogger(logger, "raft-net"),
	})
	return &transport{
		NetworkTransport: inner, stream: s, contacts: &contacts{}, commits: newCommits(), incoming: newIncoming(inner.Consumer()),
	}
}

// Consumer implements raft.Transport. Nothing comes before incoming serves.
func (t *transport) Consumer() <-chan raft.RPC { return t.incoming.to }

// SetHeartbeatHandler does nothing, on purpose.
func (t *transport) SetHeartbeatHandler(handle func(raft.RPC)) {
	if t.racing {
		t.NetworkTransport.SetHeartbeatHandler(handle)
	}
}

// AppendEntriesPipeline implements raft.Transport.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, at raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, addressed(id, at))
	if err != nil {
		return nil, err
	}
	return newPipeline(inner, t.commits, func(commit *raft.AppendEntriesRequest) error {
		return t.NetworkTransport.AppendEntries(id, addressed(id, at), commit, &raft.AppendEntriesResponse{})
	}), nil
}

// AppendEntries implements raft.Transport.
func (t *transport) AppendEntries(id raft.ServerID, at raft.ServerAddress, args *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse) error {
	call := func() error { return t.NetworkTransport.AppendEntries(id, addressed(id, at), args, resp) }
	if isHeartbeat(args) {
		err := call()
		t.contacts.note(id, err)
		return err
	}
	return t.patiently(id, at, args.Term, call)
}

// RequestVote implements raft.Transport.
func (t *transport) RequestVote(id raft.ServerID, at raft.ServerAddress, args *raft.RequestVoteRequest,
	resp *raft.RequestVoteResponse) error {
	return t.NetworkTransport.RequestVote(id, addressed(id, at), args, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (t *transport) RequestPreVote(id raft.ServerID, at raft.ServerAddress, args *raft.RequestPreVoteRequest,
	resp *raft.RequestPreVoteResponse) error {
	return t.NetworkTransport.RequestPreVote(id, addressed(id, at), args, resp)
}

// InstallSnapshot implements raft.Transport.
func (t *transport) InstallSnapshot(id raft.ServerID, at raft.ServerAddress, args *raft.InstallSnapshotRequest,
	resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.patiently(id, at, args.Term, func() error {
		return t.NetworkTransport.InstallSnapshot(id, addressed(id, at), args, resp, data)
	})
}

// TimeoutNow implements raft.Transport.
func (t *transport) TimeoutNow(id raft.ServerID, at raft.ServerAddress, args *raft.TimeoutNowRequest,
	resp *raft.TimeoutNowResponse) error {
	return t.NetworkTransport.TimeoutNow(id, addressed(id, at), args, resp)
}

// Close implements raft.WithClose. It may be called more than once.
func (t *transport) Close() error {
	t.incoming.close()
	t.CloseStreams()
	return t.NetworkTransport.Close()
}
