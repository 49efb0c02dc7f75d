package cluster

import (
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/internal/errdef"
)

// turn lets one snapshot be made at a time: raft's own one, or one that it is sent or told to restore. raft v1.8.0 makes both at once, and notes the
// one that is ready last as its newest: should that be its own, of an older state, it sends as a leader that snapshot in a loop to
// a follower that needs the newer one, and compares candidates with an older log than it has. Its own gives way: the other one
// holds more. It is safe for concurrent use.
type turn struct {
	taken  chan struct{} // holds one when it is somebody's turn
	own    atomic.Bool   // it is raft's own
	wanted atomic.Bool   // by another one
}

func newTurn() *turn { return &turn{taken: make(chan struct{}, 1)} }

// begin takes the turn for a snapshot of raft's own, unless it is another one's.
func (t *turn) begin() bool {
	select {
	case t.taken <- struct{}{}:
		t.own.Store(true)
		return true
	default:
		return false
	}
}

// await takes the turn for a snapshot that is sent, or restored by an operator. It returns false when closed is closed before.
func (t *turn) await(closed <-chan struct{}) bool {
	t.wanted.Store(true)
	defer t.wanted.Store(false)
	select {
	case t.taken <- struct{}{}:
		return true
	case <-closed:
		return false
	}
}

func (t *turn) end() {
	t.own.Store(false)
	<-t.taken
}

// giveWay fails when this turn is raft's own and another snapshot waits for it.
func (t *turn) giveWay() error {
	if t.own.Load() && t.wanted.Load() {
		return errdef.New(errdef.NotReady, "a newer snapshot comes, from the leader or an operator")
	}
	return nil
}

// inTurn takes snapshots of a machine when it is their turn. raft releases one after it has noted it, or has given it up.
type inTurn struct {
	raft.BatchingFSM
	turn  *turn
	armed *atomic.Bool // true once raft runs
	fatal func(error)
}

// Snapshot implements raft.FSM.
func (m inTurn) Snapshot() (raft.FSMSnapshot, error) {
	if !m.turn.begin() {
		return nil, errdef.New(errdef.NotReady, "another snapshot is being made")
	}
	taken, err := m.BatchingFSM.Snapshot()
	if err != nil {
		m.turn.end()
		return nil, err
	}
	return released{taken, m.turn}, nil
}

// Restore implements raft.FSM. A node that cannot restore what it was sent ends: its log may be gone (see discardStale).
func (m inTurn) Restore(snapshot io.ReadCloser) error {
	err := m.BatchingFSM.Restore(snapshot)
	if err != nil && m.armed.Load() {
		m.fatal(errdef.Wrap(errdef.ReasonOf(err), err, "a snapshot cannot be restored"))
	}
	return err
}

type released struct {
	raft.FSMSnapshot
	turn *turn
}

// Release implements raft.FSMSnapshot.
func (r released) Release() {
	r.FSMSnapshot.Release()
	r.turn.end()
}
