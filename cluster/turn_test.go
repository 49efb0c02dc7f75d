package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// A snapshot of raft's own gives way to a newer one that is sent meanwhile. Without the remedy it is ready later, and raft takes
// the older one for its newest.
func TestOwnSnapshotGivesWay(t *testing.T) {
	t.Parallel()
	if noted, err := notedAfterBoth(t, true); noted != furtherIndex || err == nil {
		t.Errorf("raft's newest ends at %d, want %d; its own one ended with %v", noted, furtherIndex, err)
	}
}

func TestOwnSnapshotWithoutRemedy(t *testing.T) {
	t.Parallel()
	if noted, err := notedAfterBoth(t, false); noted >= furtherIndex || err != nil {
		t.Fatalf("raft gets by without the remedy now, cluster/turn.go may go: %v", err)
	}
}

// notedAfterBoth begins a snapshot, has a newer one installed, ends the first one, and returns where the one ends that raft takes
// for its newest, and what became of the first one.
func notedAfterBoth(t *testing.T, remedies bool) (uint64, error) {
	p := newPair(t)
	slow := slowMachine{p.machine, make(chan struct{}), make(chan struct{})}
	p.machine = slow
	running, _ := p.start(remedies)
	p.send(furtherIndex - 2)
	own := running.Snapshot()
	<-slow.begun
	p.send(furtherIndex)
	close(slow.ready)
	err := own.Error()
	noted, failed := strconv.ParseUint(running.Stats()["last_snapshot_index"], 10, 64)
	must(t, failed)
	if remedies { // the turn was given back
		must(t, running.Snapshot().Error())
		<-slow.begun
	}
	must(t, running.Shutdown().Error())
	return noted, err
}

// slowMachine writes its snapshots until ready is closed.
type slowMachine struct {
	raft.BatchingFSM
	begun, ready chan struct{}
}

// Snapshot implements raft.FSM.
func (m slowMachine) Snapshot() (raft.FSMSnapshot, error) { return slowSnapshot{m}, nil }

type slowSnapshot struct{ slowMachine }

// Persist implements raft.FSMSnapshot.
func (s slowSnapshot) Persist(sink raft.SnapshotSink) error {
	go func() { s.begun <- struct{}{} }()
	for {
		if _, err := sink.Write([]byte("[]\n")); err != nil {
			return err
		}
		select {
		case <-s.ready:
			return sink.Close()
		case <-time.After(time.Millisecond):
		}
	}
}

// Release implements raft.FSMSnapshot.
func (s slowSnapshot) Release() {}

func TestTurn(t *testing.T) {
	t.Parallel()
	taking := newTurn()
	machine := inTurn{BatchingFSM: mockMachine{&raft.MockFSM{}}, turn: taking, armed: &atomic.Bool{}}
	taken, err := machine.Snapshot()
	must(t, err)
	if _, err := machine.Snapshot(); !errors.Is(err, errdef.ErrNotReady) {
		t.Errorf("a second one: %v", err)
	}
	closed := make(chan struct{})
	came := make(chan bool)
	go func() { came <- taking.await(sent, closed) }()
	(&fleet{t: t}).eventually("it is asked to give way", func() error {
		if taking.giveWay() == nil {
			return errdef.New(errdef.NotReady, "not yet")
		}
		return nil
	})
	close(closed)
	if <-came || taking.giveWay() != nil {
		t.Error("who went away is waited for")
	}
	taken.Release()
	if !taking.await(sent, nil) {
		t.Fatal("the turn was not given back")
	}
	taking.wanted.Add(1)
	if err := taking.giveWay(); err != nil {
		t.Errorf("one that was sent is to give way: %v", err)
	}
	if _, err := machine.Snapshot(); !errors.Is(err, errdef.ErrNotReady) {
		t.Errorf("one of its own beside one that was sent: %v", err)
	}
}

// While a snapshot is restored, the log before it is gone and the catalog has not come so far: nobody is told that it has.
func TestNothingIsReadWhileASnapshotIsRestored(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	running, _ := p.start(true)
	newest := position{furtherIndex, 2}
	c := &Cluster{
		raft: running, catalog: catalog.New(), storage: &storage{logs: p.disk.Logs, newest: func() position { return newest }},
	}
	if _, err := c.lastCommand(furtherIndex - 1); !errors.Is(err, errdef.ErrNotReady) {
		t.Errorf("before it is restored: %v", err)
	}
	p.send(furtherIndex)
	if _, err := c.lastCommand(furtherIndex - 1); err != nil {
		t.Errorf("when it is restored: %v", err)
	}
	must(t, running.Shutdown().Error())
}

// A machine that has stopped takes no snapshot, and nobody's turn.
func TestFailedSnapshotGivesTheTurnBack(t *testing.T) {
	t.Parallel()
	planted := errors.New("planted")
	machine := inTurn{BatchingFSM: stoppedMachine{err: planted}, turn: newTurn(), armed: &atomic.Bool{}}
	for range 2 {
		if _, err := machine.Snapshot(); !errors.Is(err, planted) {
			t.Errorf("a snapshot: %v", err)
		}
	}
}

// A node that runs and cannot restore what it was sent ends; one that starts fails to.
func TestFailedRestoreEndsTheNode(t *testing.T) {
	t.Parallel()
	planted := errdef.New(errdef.SnapshotInvalid, "planted")
	var ended error
	machine := inTurn{
		BatchingFSM: stoppedMachine{err: planted}, turn: newTurn(), armed: &atomic.Bool{}, fatal: func(err error) { ended = err },
	}
	restore := func() error { return machine.Restore(io.NopCloser(strings.NewReader(""))) }
	if err := restore(); !errors.Is(err, planted) || ended != nil {
		t.Errorf("at the start: %v, ended with %v", err, ended)
	}
	machine.armed.Store(true)
	if err := restore(); !errors.Is(err, planted) || !errors.Is(ended, errdef.ErrSnapshotInvalid) {
		t.Errorf("when it runs: %v, ended with %v", err, ended)
	}
}

// stoppedMachine fails.
type stoppedMachine struct {
	raft.BatchingFSM
	err error
}

// Snapshot implements raft.FSM.
func (m stoppedMachine) Snapshot() (raft.FSMSnapshot, error) { return nil, m.err }

// Restore implements raft.FSM.
func (m stoppedMachine) Restore(io.ReadCloser) error { return m.err }

// While a snapshot is made, nothing is restored; nor the other way round.
func TestRestoreTakesTheTurn(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	n := f.prepare(1, 1)[0]
	f.start(n)
	n.write("once")
	saved := n.save()
	if !n.cluster.storage.turn.await(sent, nil) {
		t.Fatal("it is somebody's turn")
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := n.cluster.RestoreLocal(short, bytes.NewReader(saved), false); errdef.ReasonOf(err) != errdef.Deadline {
		t.Errorf("restored while a snapshot is made: %v", err)
	}
	n.cluster.storage.turn.end()
	_, err := n.cluster.RestoreLocal(t.Context(), bytes.NewReader(saved), false)
	must(t, err)
	must(t, n.cluster.raft.Snapshot().Error())
}
