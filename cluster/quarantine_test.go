package cluster

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/internal/errdef"
)

// flip changes one byte in the middle of a file, or where at says when it is not negative.
func flip(t *testing.T, path string, at int) {
	t.Helper()
	content, err := os.ReadFile(path)
	must(t, err)
	if at < 0 {
		at = len(content) / 2
	}
	content[at] ^= 0x04
	must(t, os.WriteFile(path, content, 0o600))
}

// damages are what may happen to the raft directory of a node that has two snapshots and a log.
var damages = []struct {
	name  string
	harm  func(t *testing.T, dir string)
	heals bool // without quarantine: nothing is lost
	kept  string
}{
	{"meta page", func(t *testing.T, dir string) { flip(t, filepath.Join(dir, "raft.db"), 24) }, false, "log"},
	{"cut log", func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, "raft.db"), 9000)) }, false, "log"},
	{"not a log", func(t *testing.T, dir string) {
		must(t, os.WriteFile(filepath.Join(dir, "raft.db"), []byte(strings.Repeat("nonsense", 4096)), 0o600))
	}, false, "log"},
	{"newest snapshot", func(t *testing.T, dir string) { flip(t, newestSnapshot(t, dir, 0, "state.bin"), -1) }, true, "snapshot"},
	{"its description", func(t *testing.T, dir string) { must(t, os.Truncate(newestSnapshot(t, dir, 0, "meta.json"), 9)) },
		true, "snapshot"},
	{"newest snapshot, and the log ends before it", func(t *testing.T, dir string) {
		flip(t, newestSnapshot(t, dir, 0, "state.bin"), -1)
		cutBeforeNewest(t, dir)
	}, false, "snapshot"},
	{"its description, and the log ends before it", func(t *testing.T, dir string) {
		must(t, os.Truncate(newestSnapshot(t, dir, 0, "meta.json"), 9))
		cutBeforeNewest(t, dir)
	}, false, "snapshot"},
	{"both snapshots and an early log", func(t *testing.T, dir string) {
		flip(t, newestSnapshot(t, dir, 0, "state.bin"), -1)
		flip(t, newestSnapshot(t, dir, 1, "state.bin"), -1)
		bolt, err := openBoltStore(filepath.Join(dir, "raft.db"))
		must(t, err)
		must(t, errors.Join(bolt.DeleteRange(1, 2), bolt.Close()))
	}, false, "snapshot"},
	{"an entry in the middle", func(t *testing.T, dir string) {
		bolt, err := openBoltStore(filepath.Join(dir, "raft.db"))
		must(t, err)
		last, err := bolt.LastIndex()
		must(t, err)
		must(t, errors.Join(bolt.StoreLog(&raft.Log{Index: last, Term: 1, Data: []byte("another")}), bolt.Close()))
	}, false, "log"},
}

func newestSnapshot(t *testing.T, dir string, nth int, file string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "snapshots", "*", file))
	must(t, err)
	if len(found) <= nth {
		t.Fatalf("%d snapshots", len(found))
	}
	return found[len(found)-1-nth]
}

// cutBeforeNewest leaves the log of a follower that was sent the newest snapshot: it ends where the one before does.
func cutBeforeNewest(t *testing.T, dir string) {
	t.Helper()
	names, err := snapshotNames(dir)
	must(t, err)
	if len(names) != 2 {
		t.Fatalf("%d snapshots", len(names))
	}
	bolt, err := openBoltStore(filepath.Join(dir, "raft.db"))
	must(t, err)
	last, err := bolt.LastIndex()
	must(t, err)
	must(t, errors.Join(bolt.DeleteRange(names[1].index+1, last), bolt.Close()))
}

// twice takes two snapshots on a node, with writes between and after.
func (n *node) twice() {
	for _, tag := range []string{"first", "second"} {
		n.write(tag)
		n.hasTags(tag)
		must(n.fleet.t, n.cluster.raft.Snapshot().Error())
	}
	n.write("third")
	n.hasTags("third")
}

// Whatever happens to the raft directory, the node ends up with the cluster's catalog: as it was where nothing is lost, and
// else under a new id, added by the leader; what was there lies in quarantine. Without quarantine it does not start.
func TestDamagedNodeRejoins(t *testing.T) {
	t.Parallel()
	for _, c := range damages {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			nodes := f.prepare(3, 3)
			f.start(nodes...)
			harmed := without(nodes, f.leader(nodes...))[0]
			harmed.twice()
			id, cluster := harmed.cluster.Self(), harmed.cluster.ClusterID()
			f.eventually("the voters are noted", func() error {
				if harmed.cluster.identity.current().alone() {
					return errdef.New(errdef.NotReady, "none")
				}
				return nil
			})
			harmed.crash()
			c.harm(t, filepath.Join(harmed.config.DataDir, raftDir))
			f.start(harmed)
			if kept := harmed.cluster.Self() == id; kept != c.heals || harmed.cluster.ClusterID() != cluster {
				t.Errorf("node %s of %s came back as %s of %s", id, cluster, harmed.cluster.Self(), harmed.cluster.ClusterID())
			}
			found, err := filepath.Glob(filepath.Join(harmed.config.DataDir, quarantineDir, "*-"+c.kept, nodeFile))
			if must(t, err); c.kept != "" && len(found) == 0 {
				t.Error("nothing is in quarantine")
			}
			harmed.hasTags("first", "second", "third")
			harmed.waitRole(harmed.cluster.Self(), RoleVoter)
			harmed.write("after")
			f.sameAt(harmed.catalog.Snapshot().Index(), nodes...)
		})
	}
}

// What lies beside the snapshots, as a copy that somebody made, comes last: it is never taken for the newest one.
func TestSnapshotNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"2-9-70", "2-30-50", "2-30-50.bak", "2-30-60", "lost+found", "9-9-90.tmp", "1-40-10"} {
		must(t, os.MkdirAll(filepath.Join(dir, "snapshots", name), 0o700))
	}
	names, err := snapshotNames(dir)
	must(t, err)
	want := []snapshotName{
		{"2-30-60", 2, 30}, {"2-30-50", 2, 30}, {"2-9-70", 2, 9}, {"1-40-10", 1, 40}, {"lost+found", 0, 0}, {"2-30-50.bak", 0, 0},
	}
	if !slices.Equal(names, want) {
		t.Errorf("got  %v\nwant %v", names, want)
	}
}

// A damaged snapshot is missed unless the log has its last entry, in its term: a follower may have had others there, and been
// sent the snapshot because of that.
func TestDamagedSnapshotInLog(t *testing.T) {
	t.Parallel()
	logs := raft.NewInmemStore()
	must(t, logs.StoreLogs([]*raft.Log{{Index: 4, Term: 1}, {Index: 5, Term: 2}, {Index: 6, Term: 2}}))
	for _, c := range []struct {
		term, index uint64
		sound       bool
	}{
		{2, 6, true}, {1, 4, true}, {3, 6, false}, {2, 7, false}, {1, 3, false}, {0, 0, true},
	} {
		bad := badSnapshot{snapshotName{"bad", c.term, c.index}, errdef.New(errdef.ContentCorrupt, "planted")}
		err := bad.inLog(logs, extent{4, 6})
		if c.sound != (err == nil) || err != nil && !errors.As(err, new(damage)) {
			t.Errorf("term %d, index %d: %v", c.term, c.index, err)
		}
	}
}

// What nobody else has is not set aside: the node does not start, and says what can be done.
func TestDamagedNodeAlone(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	n := f.prepare(1, 1)[0]
	f.start(n)
	n.twice()
	n.crash()
	whole := filepath.Join(t.TempDir(), "whole")
	must(t, os.CopyFS(whole, os.DirFS(n.config.DataDir)))
	for _, c := range damages {
		t.Run(c.name, func(t *testing.T) {
			n.config.DataDir = filepath.Join(t.TempDir(), "data")
			must(t, os.CopyFS(n.config.DataDir, os.DirFS(whole)))
			c.harm(t, filepath.Join(n.config.DataDir, raftDir))
			err := n.open()
			if c.heals {
				must(t, err)
				n.hasTags("first", "second", "third")
				n.crash()
				return
			}
			var typed *errdef.Error
			if !errors.As(err, &typed) || typed.Reason != errdef.ContentCorrupt || !strings.Contains(typed.Remedy, "snapshot restore") {
				t.Errorf("started: %v", err)
			}
			if _, err := os.Stat(filepath.Join(n.config.DataDir, raftDir, "raft.db")); err != nil {
				t.Errorf("something was moved: %v", err)
			}
			if _, err := os.Stat(filepath.Join(n.config.DataDir, quarantineDir)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("something was set aside before it was known whether the node can do without: %v", err)
			}
		})
	}
}

// A snapshot that is whole and cannot be restored is not passed over: raft would go on from the one before, behind what this
// node has acknowledged.
func TestNewestSnapshotOrNone(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	n := f.prepare(1, 1)[0]
	f.start(n)
	n.twice()
	n.crash()
	restores := 0
	n.wrap = func(machine Machine) Machine { return refusing{machine, &restores} }
	if err := n.open(); err == nil || restores != 1 {
		t.Errorf("started from another snapshot, or none: %v after %d", err, restores)
	}
	n.detach()
	n.wrap = nil
	f.start(n)
	n.hasTags("first", "second", "third")
}

// refusing cannot restore the first snapshot that it is given.
type refusing struct {
	Machine
	restores *int
}

func (r refusing) Restore(snapshot io.ReadCloser) error {
	if *r.restores++; *r.restores == 1 {
		return errors.Join(errors.New("planted"), snapshot.Close())
	}
	return r.Machine.Restore(snapshot)
}

// A node whose Raft state is gone is bound to its cluster, even where it could found one with others: without the bond it
// would bootstrap here.
func TestLostStateNeverBootstraps(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(2, 2)
	f.start(nodes...)
	for _, n := range nodes {
		f.eventually("the voters are noted", func() error {
			if n.cluster.identity.current().alone() {
				return errdef.New(errdef.NotReady, "none")
			}
			return nil
		})
	}
	cluster := nodes[0].cluster.ClusterID()
	for _, n := range nodes {
		n.crash()
		must(t, os.RemoveAll(filepath.Join(n.config.DataDir, raftDir)))
	}
	for _, n := range nodes {
		n.start()
	}
	f.eventually("both are in sight of each other", func() error {
		for _, n := range nodes {
			if !n.cluster.gossip.complete.Load() || len(n.cluster.gossip.seen()) != 1 {
				return errdef.New(errdef.NotReady, "%d seen", len(n.cluster.gossip.seen()))
			}
		}
		return nil
	})
	for _, n := range nodes {
		must(t, n.cluster.seek(t.Context()))
		now := n.cluster.identity.current()
		if now.ClusterID != "" || now.Promise != nil || now.Rejoin == nil || now.Rejoin.ClusterID != cluster {
			t.Errorf("%s: %+v", n.config.Name, now)
		}
	}
}

// A restore that was interrupted on a node leaves it apart from the others: it comes back under a new id. One that is alone
// goes on.
func TestInterruptedRestore(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	alone := f.prepare(1, 1)[0]
	f.start(append(nodes[:3:3], alone)...)
	for _, n := range []*node{nodes[0], alone} {
		n.write("kept")
		f.eventually("the voters are noted", func() error {
			if len(n.cluster.identity.current().Voters) == 0 {
				return errdef.New(errdef.NotReady, "none")
			}
			return nil
		})
		id := n.cluster.Self()
		must(t, n.cluster.identity.change(func(r *record) { r.Restoring = true }))
		n.crash()
		f.start(n)
		if same := n.cluster.Self() == id; same != (n == alone) {
			t.Errorf("%s: %s came back as %s", n.config.Name, id, n.cluster.Self())
		}
		n.hasTags("kept")
		if n.cluster.identity.current().Restoring {
			t.Errorf("%s is still restoring", n.config.Name)
		}
	}
}
