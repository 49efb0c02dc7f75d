package fsm

import (
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/fsm/catalog/catalogtest"
	"github.com/ocistern/ocistern/internal/errdef"
)

// TestUnderRaft runs the state machine under a real raft of one voter: commands, a snapshot in a file store, more
// commands, then a restart that restores the snapshot and replays the rest; at last a command of a newer version.
func TestUnderRaft(t *testing.T) {
	voter := newVoter(t)
	commands := catalogtest.NewCommands(11)
	before := catalog.New()
	node := voter.start(before, nil)
	bootstrap := raft.Configuration{Servers: []raft.Server{{ID: "n1", Address: voter.transport.LocalAddr()}}}
	succeed(t, node.BootstrapCluster(bootstrap))
	lead(node)
	propose(t, node, commands, 150)
	succeed(t, node.Snapshot())
	propose(t, node, commands, 50)
	succeed(t, node.Shutdown())

	after := catalog.New()
	stopped := make(chan error, 2)
	node = voter.start(after, func(err error) { stopped <- err })
	if after.Snapshot().Index() == 0 {
		t.Error("the snapshot was not restored")
	}
	lead(node)
	succeed(t, node.Barrier(time.Minute))
	was, is := before.Snapshot(), after.Snapshot()
	if is.Index() != was.Index() || is.CommandHash() != was.CommandHash() || digestOf(t, is) != digestOf(t, was) {
		t.Errorf("index %d before the restart, %d after it, or other content", was.Index(), is.Index())
	}

	succeed(t, node.Apply(unknownCommand, time.Minute))
	if err := <-stopped; errdef.ReasonOf(err) != errdef.CommandUnknown {
		t.Errorf("stopped with %v", err)
	}
	if err := node.Snapshot().Error(); err == nil {
		t.Error("a snapshot was taken that lacks a committed command")
	}
	succeed(t, node.Shutdown())
}

// voter is what outlives the restart of a node.
type voter struct {
	t         *testing.T
	logs      *raft.InmemStore
	snapshots raft.SnapshotStore
	transport *raft.InmemTransport
}

func newVoter(t *testing.T) *voter {
	snapshots, err := raft.NewFileSnapshotStore(t.TempDir(), 1, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	_, transport := raft.NewInmemTransport("")
	return &voter{t: t, logs: raft.NewInmemStore(), snapshots: snapshots, transport: transport}
}

func (v *voter) start(cat *catalog.Catalog, stop func(error)) *raft.Raft {
	config := raft.DefaultConfig()
	config.LocalID, config.LogOutput, config.TrailingLogs = "n1", io.Discard, 0
	config.HeartbeatTimeout, config.ElectionTimeout = 50*time.Millisecond, 50*time.Millisecond
	config.LeaderLeaseTimeout = 50 * time.Millisecond
	machine := New(cat, Options{Stop: stop})
	node, err := raft.NewRaft(config, machine, v.logs, v.logs, v.snapshots, v.transport)
	if err != nil {
		v.t.Fatal(err)
	}
	return node
}

// lead waits until the node leads.
func lead(node *raft.Raft) {
	for !<-node.LeaderCh() {
	}
}

func succeed(t *testing.T, future raft.Future) {
	t.Helper()
	if err := future.Error(); err != nil {
		t.Fatal(err)
	}
}

// propose submits commands at once, so that they are applied in batches, and waits for all.
func propose(t *testing.T, node *raft.Raft, commands *catalogtest.Commands, count int) {
	t.Helper()
	futures := make([]raft.ApplyFuture, count)
	for i := range futures {
		encoded, err := Encode(commands.Next())
		if err != nil {
			t.Fatal(err)
		}
		futures[i] = node.Apply(encoded, time.Minute)
	}
	for _, future := range futures {
		succeed(t, future)
	}
}
