package cluster

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/internal/errdef"
)

// returnInterval is how often a node that cannot be reached is dialled.
const returnInterval = 100 * time.Millisecond

// patiently makes a call that carries the log. While its node cannot be reached, it waits instead of failing: raft
// doubles its pause after each failure, up to 10 s, and does not look up when the node is back. A follower that was
// away for a while would be left without its log for that long. Only failures to connect are waited for: nothing was
// sent.
func (t *transport) patiently(id raft.ServerID, at raft.ServerAddress, term uint64, call func() error) error {
	err := call()
	if errdef.ReasonOf(err) != errdef.Unavailable || !t.awaitReturn(id, at, term) {
		return err
	}
	return call()
}

// awaitReturn waits until a node can be reached. It returns false when another node has taken the address, and when the
// node is no longer to be sent the log there: it was moved or removed, or this node does not lead in that term any more. In a
// later one, another call carries the log.
func (t *transport) awaitReturn(id raft.ServerID, at raft.ServerAddress, term uint64) bool {
	ticker := time.NewTicker(returnInterval)
	defer ticker.Stop()
	for range ticker.C {
		follows := t.follows.Load()
		if follows == nil || !(*follows)(id, at, term) {
			return false
		}
		conn, err := t.stream.Dial(addressed(id, at), t.stream.timeout)
		if err == nil {
			conn.Close()
			return true
		}
		if errdef.ReasonOf(err) != errdef.Unavailable {
			return false
		}
	}
	return false
}

// followersOf tells whether a node leads in a term and has another one at an address in its configuration.
func followersOf(running *raft.Raft) func(raft.ServerID, raft.ServerAddress, uint64) bool {
	return func(id raft.ServerID, at raft.ServerAddress, term uint64) bool {
		return running.State() == raft.Leader && running.CurrentTerm() == term &&
			slices.ContainsFunc(running.GetConfiguration().Configuration().Servers, func(s raft.Server) bool {
				return s.ID == id && s.Address == at
			})
	}
}

// isHeartbeat recognizes a heartbeat as raft's own network transport does.
func isHeartbeat(args *raft.AppendEntriesRequest) bool {
	return len(args.Entries) == 0 && args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && args.LeaderCommitIndex == 0
}
