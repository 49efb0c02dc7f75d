package cluster

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/errdef"
)

// A node with an empty disk becomes a voter while voters are missing, and a nonvoter when there are enough. Both
// catch up, the second one from a snapshot, and take writes.
func TestJoin(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(2, 2)
	for _, n := range nodes {
		n.config.Timings.TrailingLogs = 1
	}
	f.start(nodes...)
	nodes[0].write("one")
	nodes[1].hasTags("one")
	for _, n := range nodes {
		n.crash()
		n.config.Expect = 3 // two nodes have bootstrapped; now there are to be three voters
	}
	f.start(nodes...)

	join := nodes[0].config.Join
	third := f.add(3, freeAddress(), join...)
	f.start(third)
	third.hasTags("one")
	nodes[0].waitRole(third.cluster.Self(), RoleVoter)

	nodes[0].write("two")
	nodes[1].hasTags("two")
	leader := f.leader(append(nodes, third)...)
	must(t, leader.cluster.raft.Snapshot().Error())
	fourth := f.add(3, freeAddress(), join...)
	f.start(fourth)
	if first, err := fourth.cluster.storage.logs.FirstIndex(); err != nil || first == 1 {
		t.Errorf("the node was sent the log from entry %d (%v), not a snapshot", first, err)
	}
	leader.waitRole(fourth.cluster.Self(), RoleNonvoter)
	fourth.write("three")
	fourth.hasTags("one", "two", "three")
	f.sameDigest(append(nodes, third, fourth)...)
	f.eventually("all are seen alive", func() error {
		if got := fourth.cluster.Living(); len(got) != 4 {
			return errdef.New(errdef.NotReady, "%v are alive", got)
		}
		return nil
	})
}

// A voter whose disk was lost comes back under a new id at its old address. It takes the place of the old id, whose
// votes and blobs are gone.
func TestWipedNodeIsReplaced(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	old := nodes[2].cluster.Self()
	command := push("kept")
	command.Holder = old
	nodes[0].apply(command)
	nodes[2].crash()
	nodes[2].wipe()
	f.start(nodes[2])

	renewed := nodes[2].cluster.Self()
	if renewed == old {
		t.Fatalf("the node kept the id %s without its disk", old)
	}
	nodes[0].waitRole(renewed, RoleVoter)
	nodes[0].waitRole(old, "")
	nodes[2].hasTags("kept")
	if blob, ok := nodes[2].catalog.Snapshot().Blob(digest.FromString("kept")); !ok || len(blob.Holders) != 0 {
		t.Errorf("holders are %v; the old node's disk is gone", blob.Holders)
	}
	nodes[2].write("after")
	// The new voter counts: with it and one more there is a quorum.
	nodes[1].crash()
	nodes[2].write("with-the-new-voter")
}

// A node that comes back under other addresses is found there by its id.
func TestNodeMoves(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	// First the node that leads, then one that follows; either may lead when it is back.
	for round := range 2 {
		moved := f.leader(nodes...)
		if round == 1 {
			moved = without(nodes, moved)[0]
		}
		f.move(moved, nodes)
	}
	nodes[0].crash()
	nodes[2].write("from-there")
}

// move restarts a node under other addresses and waits until all nodes know them.
func (f *fleet) move(moved *node, nodes []*node) {
	f.t.Helper()
	moved.crash()
	moved.config.Listen = Addresses{Raft: freeAddress(), Gossip: freeAddress()}
	f.start(moved)
	for _, n := range nodes {
		f.eventually(n.config.Name+" knows the new addresses", func() error {
			m, _ := n.cluster.Member(moved.cluster.Self())
			at := Addresses{Raft: m.Addresses.Raft, Gossip: m.Addresses.Gossip}
			if at != moved.config.Listen || m.State != StateAlive {
				return errdef.New(errdef.NotReady, "it is %+v", m)
			}
			return nil
		})
	}
}

// A cluster looks for the nodes it knows of: here the others have to find the node that joins nobody.
func TestPeriodicJoinFindsNodes(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	nodes[2].config.Join = nil
	nodes[0].start()
	nodes[1].start()
	f.start(nodes[2])
	f.waitReady(nodes...)
}
