package cluster

import (
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/internal/errdef"
)

// turn lets one snapshot be made at a time: raft's own one, or one that it is sent or told to restore. raft v1.8.0 makes both at
// once, and notes the one that is ready last as its newest: should that be its own, of an older state, it sends as a leader that
// snapshot in a loop to a follower that needs the newer one, and compares candidates with an older log than it has. Its own gives
// way: the other one holds more. It is safe for concurrent use.
type turn struct {
	taken  chan struct{} // holds one when it is somebody's turn
	whose  atomic.Int32  // an origin
	wanted atomic.Int32  // by how many that are not raft's own
}

// origin is where a snapshot comes from.
type origin int32

const (
	nobody   origin = iota
	own             // raft captures the state
	sent            // by a leader
	restored        // by an operator
)

func newTurn() *turn { return &turn{taken: make(chan struct{}, 1)} }

// begin takes the turn for a snapshot of raft's own, unless it is another one's.
func (t *turn) begin() bool {
	select {
	case t.taken <- struct{}{}:
		t.whose.Store(int32(own))
		return true
	default:
		return false
	}
}

// await takes the turn for another snapshot. It returns false when closed is closed before.
func (t *turn) await(whose origin, closed <-chan struct{}) bool {
	t.wanted.Add(1)
	defer t.wanted.Add(-1)
	select {
	case t.taken <- struct{}{}:
		t.whose.Store(int32(whose))
		return true
	case <-closed:
		return false
	}
}

func (t *turn) end() {
	t.whose.Store(int32(nobody))
	<-t.taken
}

func (t *turn) is(whose origin) bool { return origin(t.whose.Load()) == whose }

// giveWay fails when this turn is raft's own and another snapshot waits for it.
func (t *turn) giveWay() error {
	if t.is(own) && t.wanted.Load() > 0 {
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
