package cluster

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

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
func (f *fleet) restore(snapshot []byte, force bool, nodes ...*node) (leader *node, done Restored) {
	f.t.Helper()
	f.eventually("a snapshot is restored", func() (err error) {
		leader = f.leader(nodes...)
		done, err = leader.cluster.RestoreLocal(f.t.Context(), bytes.NewReader(snapshot), force)
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
	gone := others[1].cluster.Self()
	others[1].crash()
	f.eventually("the leader misses one", func() error {
		if s, _ := leader.cluster.gossip.sighting(gone); s.State == StateAlive {
			return errdef.New(errdef.NotReady, "not yet")
		}
		return nil
	})

	// With a bare quorum, a leader that fails in the middle would cost it.
	_, err := leader.cluster.RestoreLocal(t.Context(), bytes.NewReader(saved), false)
	if errdef.ReasonOf(err) != errdef.Degraded || !leader.has("gone") {
		t.Errorf("with two of three voters: %v", err)
	}
	leader, done := f.restore(saved, true, leader, others[0])
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
			if !reflect.DeepEqual(n.catalog.Snapshot().Header(), nodes[0].catalog.Snapshot().Header()) {
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

func TestCostsQuorum(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		voters, others int
		want           bool
	}{
		{1, 0, false}, {2, 1, false}, {3, 2, false}, {3, 1, true}, {4, 3, false}, {4, 2, true}, {5, 3, false}, {5, 2, true},
	} {
		if got := costsQuorum(c.voters, c.others); got != c.want {
			t.Errorf("%d voters, %d others alive: %t", c.voters, c.others, got)
		}
	}
}

// What raft reads is complete only once it is noted that the restore counts. One that was given up before never completes; one
// that cannot be noted neither.
func TestLastPart(t *testing.T) {
	t.Parallel()
	const text = "a snapshot"
	for _, c := range []struct {
		name   string
		stopAt int // bytes read before the restore is given up
		fails  error
		passed bool
	}{
		{"read to the end", len(text), nil, true},
		{"given up before", 0, nil, false},
		{"given up in the middle", len(text) - 1, nil, false},
		{"cannot be noted", len(text), errors.New("planted"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			noted := 0
			last := &lastPart{from: iotest.OneByteReader(strings.NewReader(text)), left: int64(len(text)), pass: func() error {
				noted++
				return c.fails
			}}
			read, err := io.ReadAll(io.LimitReader(last, int64(c.stopAt)))
			if c.stopAt < len(text) && noted > 0 {
				t.Error("it counts before it is complete")
			}
			stopped := last.stop()
			rest, restErr := io.ReadAll(last)
			if whole := len(read)+len(rest) == len(text); whole != c.passed || stopped != c.passed ||
				(errors.Join(err, restErr) == nil) != c.passed {
				t.Errorf("read %q and %q, %v, %v; passed: %t", read, rest, err, restErr, stopped)
			}
			if want := c.passed || c.fails != nil; (noted > 0) != want || c.passed && noted != 1 {
				t.Errorf("noted %d times", noted)
			}
		})
	}
}

// A restore that fails before raft has the whole snapshot leaves the node as it was, with its id and its vote; one that is under
// way when the node is told to stop ends first.
func TestStopWhileRestoring(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	var slow atomic.Pointer[chan struct{}]
	for _, n := range nodes {
		n.wrap = func(machine Machine) Machine { return slowRestore{machine, &slow} }
	}
	f.start(nodes...)
	leader := f.leader(nodes...)
	id := leader.cluster.Self()
	leader.write("kept")
	saved := leader.save()
	for _, n := range nodes {
		f.eventually("the voters are noted", func() error {
			if n.cluster.identity.current().alone() {
				return errdef.New(errdef.NotReady, "none")
			}
			return nil
		})
	}
	leader.cluster.closing.begun.Store(true) // as by Shutdown, which has looked and seen no restore
	if _, err := leader.cluster.RestoreLocal(t.Context(), bytes.NewReader(saved), false); err == nil ||
		leader.cluster.identity.current().Restoring {
		t.Errorf("a restore began while the node stops: %v", err)
	}
	leader.cluster.closing.begun.Store(false)
	release := make(chan struct{})
	slow.Store(&release)
	restored := make(chan error, 1)
	go func() {
		_, err := leader.cluster.RestoreLocal(t.Context(), bytes.NewReader(saved), false)
		restored <- err
	}()
	f.eventually("the restore counts", func() error {
		if !leader.cluster.identity.current().Restoring {
			return errdef.New(errdef.NotReady, "not yet")
		}
		return nil
	})
	running, stopped := leader.cluster, make(chan struct{})
	go func() {
		defer close(stopped)
		leader.stop()
	}()
	select {
	case <-running.lifetime.Done():
		t.Error("the node went on to stop")
	case <-time.After(4 * leader.config.Timings.Election): // longer than it would wait to hand over
	}
	close(release)
	must(t, <-restored)
	<-stopped
	slow.Store(nil)
	f.start(leader)
	if leader.cluster.Self() != id {
		t.Errorf("node %s came back as %s", id, leader.cluster.Self())
	}
	leader.hasTags("kept")
}

// slowRestore waits in Restore where a channel is set.
type slowRestore struct {
	Machine
	until *atomic.Pointer[chan struct{}]
}

func (s slowRestore) Restore(snapshot io.ReadCloser) error {
	if until := s.until.Load(); until != nil {
		<-*until
	}
	return s.Machine.Restore(snapshot)
}
