package cluster

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// save returns a snapshot of the cluster, taken through a node.
func (n *node) save() []byte {
	n.fleet.t.Helper()
	var saved bytes.Buffer
	n.fleet.eventually("a snapshot is saved through "+n.config.Name, func() error {
		saved.Reset()
		return n.cluster.SaveSnapshot(n.fleet.t.Context(), &saved, false)
	})
	return saved.Bytes()
}

// restore restores a snapshot through the leader of nodes, which it returns; again where the leadership is lost meanwhile: a
// follower that restores answers no heartbeats, which takes long on a busy disk.
func (f *fleet) restore(snapshot []byte, otherCluster bool, nodes ...*node) (leader *node, done Restored) {
	f.t.Helper()
	f.eventually("a snapshot is restored", func() (err error) {
		leader = f.leader(nodes...)
		done, err = leader.cluster.RestoreLocal(f.t.Context(), bytes.NewReader(snapshot), otherCluster)
		return err
	})
	return leader, done
}

func (n *node) has(tag string) bool {
	return slices.ContainsFunc(n.catalog.Snapshot().Tags("default", "team/app", "", 100), func(t catalog.Tag) bool {
		return string(t.Name) == tag
	})
}

// A restore takes the whole cluster back to what was saved, and forward in the log: no catalog's index goes back, a
// linearizable read anywhere sees the restored catalog, and equal indexes still mean equal hashes. A node that was away
// follows, and so do all after a restart. Without a new index in the snapshot's header the catalogs would go back, and a
// follower that has not restored yet would answer a linearizable read from what was replaced.
func TestRestore(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	leader := f.leader(nodes...)
	others := without(nodes, leader)
	leader.write("kept")
	saved := others[0].save()
	before := leader.write("gone")
	others[1].hasTags("gone")
	others[1].crash()

	leader, done := f.restore(saved, false, leader, others[0])
	if done.Before < before || done.Index <= done.Before {
		t.Errorf("restored at index %d after %d, the last write was at %d", done.Index, done.Before, before)
	}
	for _, n := range []*node{leader, others[0]} {
		index, err := n.cluster.ReadIndex(t.Context())
		if err != nil || index < done.Index {
			t.Errorf("%s: read index %d, %v, restored at %d", n.config.Name, index, err, done.Index)
		}
		snapshot, err := n.catalog.Wait(t.Context(), index)
		must(t, err)
		if _, gone := snapshot.Tag("default", "team/app", "gone"); gone || !n.has("kept") {
			t.Errorf("%s has not restored at index %d", n.config.Name, snapshot.Index())
		}
	}
	leader.write("after")
	f.start(others[1])
	f.sameAt(leader.catalog.Snapshot().Index(), nodes...)

	for _, n := range nodes {
		n.crash()
	}
	f.start(nodes...)
	f.sameAt(leader.catalog.Snapshot().Index(), nodes...)
	for _, n := range nodes {
		if n.has("gone") || !n.has("kept") || !n.has("after") {
			t.Errorf("%s has %v", n.config.Name, n.catalog.Snapshot().Tags("default", "team/app", "", 9))
		}
	}
}

// sameAt waits until all nodes have reached an index, and compares their catalogs.
func (f *fleet) sameAt(index catalog.LogIndex, nodes ...*node) {
	f.t.Helper()
	for _, n := range nodes {
		if _, err := n.catalog.Wait(f.t.Context(), index); err != nil {
			f.t.Fatal(err)
		}
	}
	f.sameDigest(nodes...)
	f.eventually("all hashes are equal", func() error {
		for _, n := range nodes {
			if n.catalog.Snapshot().Header() != nodes[0].catalog.Snapshot().Header() {
				return errdef.New(errdef.NotReady, "%+v and %+v", n.catalog.Snapshot().Header(),
					nodes[0].catalog.Snapshot().Header())
			}
		}
		return nil
	})
}

// What is refused changes nothing.
func TestRestoreRefused(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(2, 2)
	stranger := f.prepare(1, 1)[0]
	f.start(append(slices.Clone(nodes), stranger)...)
	leader := f.leader(nodes...)
	leader.write("ours")
	stranger.write("theirs")
	ours, theirs := leader.save(), stranger.save()
	leader.hasTags("ours")
	cut := ours[:len(ours)-1]
	for _, c := range []struct {
		name     string
		through  *node
		snapshot []byte
		force    bool
		want     errdef.Reason
	}{
		{"cut off", leader, cut, false, errdef.SnapshotInvalid},
		{"cut off, by force", leader, cut, true, errdef.SnapshotInvalid},
		{"of another cluster", leader, theirs, false, errdef.ClusterMismatch},
		{"through a follower", without(nodes, leader)[0], ours, false, errdef.NotLeader},
		{"empty", leader, nil, false, errdef.SnapshotInvalid},
	} {
		index := leader.catalog.Snapshot().Index()
		_, err := c.through.cluster.RestoreLocal(t.Context(), bytes.NewReader(c.snapshot), c.force)
		if errdef.ReasonOf(err) != c.want || leader.catalog.Snapshot().Index() != index || !leader.has("ours") {
			t.Errorf("%s: %v, index %d after %d", c.name, err, leader.catalog.Snapshot().Index(), index)
		}
	}

	// By force it becomes a snapshot of this cluster, and the holders of the other one are forgotten.
	leader, _ = f.restore(theirs, true, nodes...)
	if leader.has("ours") || !leader.has("theirs") || leader.catalog.Snapshot().ClusterID() != leader.cluster.ClusterID() {
		t.Errorf("cluster %s, tags %v", leader.catalog.Snapshot().ClusterID(),
			leader.catalog.Snapshot().Tags("default", "team/app", "", 9))
	}
	for blob := range leader.catalog.Snapshot().Blobs() {
		if len(blob.Holders) > 0 {
			t.Errorf("%s is held by %v", blob.Digest, blob.Holders)
		}
	}
	f.sameAt(leader.catalog.Snapshot().Index(), nodes...)
}

// Without a quorum a snapshot can still be saved, when that is asked for.
func TestSaveWithoutQuorum(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	nodes[0].write("kept")
	nodes[1].hasTags("kept")
	nodes[0].crash()
	nodes[2].crash()
	var saved bytes.Buffer
	err := nodes[1].cluster.SaveSnapshot(t.Context(), &saved, false)
	if !errors.Is(err, errdef.ErrNoQuorum) || saved.Len() > 0 {
		t.Errorf("without a quorum: %v, %d bytes", err, saved.Len())
	}
	must(t, nodes[1].cluster.SaveSnapshot(t.Context(), &saved, true))
	if saved.Len() == 0 {
		t.Error("nothing was saved")
	}
}
