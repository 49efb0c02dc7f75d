package cluster

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/internal/errdef"
)

// lost is a cluster of three that has written, and of which no node runs any more.
func lost(t *testing.T) (*fleet, []*node) {
	t.Helper()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	leader := f.leader(nodes...)
	leader.write("early")
	must(t, leader.cluster.raft.Snapshot().Error())
	leader.write("late")
	for _, n := range nodes {
		n.hasTags("late")
	}
	for _, n := range nodes {
		n.crash()
	}
	return f, nodes
}

// One survivor becomes a cluster of its own with all that it had. The others cannot speak to it as they are, alone or
// together, and say what to do; with empty disks they join it. Without the word of the recovered node in gossip, two old
// nodes would go on as the old cluster: the third case of this test.
func TestRecover(t *testing.T) {
	t.Parallel()
	f, nodes := lost(t)
	survivor, others := nodes[0], nodes[1:]
	before, err := readRecord(filepath.Join(survivor.config.DataDir, nodeFile))
	must(t, err)
	recovered, err := Recover(survivor.config.DataDir, testLogger("recover"))
	must(t, err)
	if recovered == before.ClusterID || recovered == "" {
		t.Fatalf("cluster %q was recovered as %q", before.ClusterID, recovered)
	}
	f.start(survivor)
	if survivor.cluster.ClusterID() != recovered || survivor.cluster.Self() != before.ID {
		t.Errorf("node %s of cluster %s came back as %s of %s", before.ID, before.ClusterID, survivor.cluster.Self(),
			survivor.cluster.ClusterID())
	}
	survivor.hasTags("early", "late")
	survivor.write("after")

	refused := func(n *node) {
		t.Helper()
		err := n.open()
		var typed *errdef.Error
		if !errors.As(err, &typed) || typed.Reason != errdef.ClusterMismatch || typed.Remedy == "" {
			t.Errorf("%s of the old cluster: %v", n.config.Name, err)
		}
	}
	refused(others[0])
	survivor.crash()
	others[0].start() // nobody is there who could say otherwise
	others[1].config.Join = []string{others[1].config.Listen.Gossip}
	f.start(survivor)
	f.eventually("the old node that runs is told", func() error {
		if err := others[0].cluster.Ready(); errdef.ReasonOf(err) != errdef.ClusterMismatch {
			return errdef.New(errdef.NotReady, "%v", err)
		}
		return nil
	})
	others[1].config.Join = others[0].config.Join
	refused(others[1])
	others[0].crash()

	for _, n := range others {
		n.wipe()
	}
	f.start(others...)
	for _, n := range others {
		survivor.waitRole(n.cluster.Self(), RoleVoter)
		n.hasTags("early", "late", "after")
	}
	survivor.crash()
	others[0].write("without-the-survivor")
	f.sameDigest(others...)
}

// A recovery that stops at any of its steps, or inside of one, keeps the node from starting, says how to go on, and is
// finished under the id that was drawn first.
func TestRecoverInterrupted(t *testing.T) {
	t.Parallel()
	_, nodes := lost(t)
	spoiled := errors.New("planted")
	for _, c := range []struct {
		name   string
		steps  int
		spoil  func(*survivor)
		begins bool // a recovery that must be finished
	}{
		{"before all", 0, func(*survivor) {}, false},
		{"announced", 1, func(*survivor) {}, true},
		{"no snapshot", 2, func(s *survivor) { s.storage.snapshots = noSnapshots{s.storage.snapshots, spoiled} }, true},
		{"log not emptied", 2, func(s *survivor) { s.storage.logs = noDeletion{s.storage.logs, spoiled} }, true},
		{"isolated", 2, func(*survivor) {}, true},
		{"finished", 3, func(*survivor) {}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			must(t, os.CopyFS(dir, os.DirFS(nodes[0].config.DataDir)))
			s, err := openSurvivor(dir, testLogger("recover"))
			must(t, err)
			c.spoil(s)
			for _, step := range s.steps()[:c.steps] {
				if err := step(); err != nil && !strings.Contains(err.Error(), spoiled.Error()) {
					t.Fatal(err)
				}
			}
			drawn := ""
			if r := s.identity.current().Recovery; r != nil {
				drawn = r.ClusterID
			}
			must(t, s.storage.close())

			f := newFleet(t)
			n := f.prepare(1, 1)[0]
			n.config.DataDir = dir
			if c.begins {
				err := n.open()
				var typed *errdef.Error
				if !errors.As(err, &typed) || typed.Reason != errdef.NotReady || typed.Remedy == "" {
					t.Errorf("started: %v", err)
				}
				if found, err := Examine(dir, testLogger("examine")); err != nil || !found.Unfinished {
					t.Errorf("examined as %+v, %v", found, err)
				}
			}
			recovered, err := Recover(dir, testLogger("recover"))
			must(t, err)
			if c.begins && recovered != drawn {
				t.Errorf("recovered as %s, announced as %s", recovered, drawn)
			}
			n.config.Listen = nodes[0].config.Listen
			f.start(n)
			n.hasTags("early", "late")
			n.write("after")
			n.crash()
		})
	}
}

type noSnapshots struct {
	raft.SnapshotStore
	err error
}

func (s noSnapshots) Create(raft.SnapshotVersion, uint64, uint64, raft.Configuration, uint64, raft.Transport,
) (raft.SnapshotSink, error) {
	return nil, s.err
}

type noDeletion struct {
	raft.LogStore
	err error
}

func (s noDeletion) DeleteRange(uint64, uint64) error { return s.err }

// What is found tells which survivor to choose, and examining changes nothing.
func TestExamine(t *testing.T) {
	t.Parallel()
	f, nodes := lost(t)
	before := map[string][]byte{}
	for _, n := range nodes {
		content, err := os.ReadFile(filepath.Join(n.config.DataDir, nodeFile))
		must(t, err)
		before[n.config.DataDir] = content
		found, err := Examine(n.config.DataDir, testLogger("examine"))
		must(t, err)
		if found.Term == 0 || found.LastTerm == 0 || found.LastIndex < 4 || len(found.Others) != 2 || found.Catalog.Tags != 2 ||
			found.OnlyElsewhere != 2 || found.Unfinished || found.Restoring || found.Role != RoleVoter {
			t.Errorf("%s: %+v", n.config.Name, found)
		}
		if taken := found.SnapshotIndex > 0; taken != !found.SnapshotTime.IsZero() {
			t.Errorf("%s: snapshot at %d of %s", n.config.Name, found.SnapshotIndex, found.SnapshotTime)
		}
	}
	for dir, content := range before {
		if now, err := os.ReadFile(filepath.Join(dir, nodeFile)); err != nil || !bytes.Equal(now, content) {
			t.Errorf("%s was %s and is %s, %v", dir, content, now, err)
		}
	}
	nodes[0].rewrite(func(r *record) { r.Restoring = true })
	if found, err := Examine(nodes[0].config.DataDir, testLogger("examine")); err != nil || !found.Restoring {
		t.Errorf("of a node that was restoring: %+v, %v", found, err)
	}
	nodes[0].rewrite(func(r *record) { r.Restoring = false })
	f.start(nodes...)
	// What node.json says while the node runs is not looked at: it may be another word in a moment.
	nodes[0].rewrite(func(r *record) { r.Retired = &retirement{Reason: errdef.Removed} })
	if _, err := Examine(nodes[0].config.DataDir, testLogger("examine")); !errors.Is(err, errdef.ErrStorageFailed) {
		t.Errorf("of a node that runs: %v", err)
	}
	if _, err := Examine(t.TempDir(), testLogger("examine")); !errors.Is(err, errdef.ErrStorageFailed) {
		t.Errorf("of nothing: %v", err)
	}
	if got := (&raft.SnapshotMeta{ID: "x"}); !takenAt(got).IsZero() {
		t.Error("a name without a time has one")
	}
}
