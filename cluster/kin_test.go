package cluster

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// recovers recovers a node that does not run and starts it.
func (n *node) recovers() string {
	n.fleet.t.Helper()
	recovered, err := Recover(n.config.DataDir, testLogger("recover"))
	must(n.fleet.t, err)
	n.fleet.start(n)
	return recovered
}

// waitNotice waits until a node shows a notice that has all of the texts.
func (n *node) waitNotice(texts ...string) {
	n.fleet.t.Helper()
	n.fleet.eventually(n.config.Name+" says "+strings.Join(texts, ", "), func() error {
		for _, notice := range n.cluster.Notices() {
			if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(notice, text) }) {
				return nil
			}
		}
		return errdef.New(errdef.NotReady, "%q", n.cluster.Notices())
	})
}

// Whatever a cluster was before, however often it was recovered, all its members keep the nodes of that one out, also when the
// survivor is gone. With one former cluster, in the node.json of the survivor, the first of two would come back here. At feature
// level 1 only the survivor knows them, and it tells them when the level rises.
func TestAllFormersAreKeptOut(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	for _, n := range nodes {
		n.config.FeatureLevel = catalog.LevelFirst
	}
	f.start(nodes...)
	survivor, others := nodes[0], nodes[1:]
	survivor.write("early")
	first := survivor.cluster.ClusterID()
	for _, n := range nodes {
		n.hasTags("early")
	}
	for _, n := range nodes {
		n.crash()
		n.config.FeatureLevel = 0
	}
	old := filepath.Join(t.TempDir(), "old")
	must(t, os.CopyFS(old, os.DirFS(survivor.config.DataDir)))

	second := survivor.recovers()
	f.waitLevel(fsm.MaxLevel, survivor)
	f.eventually("the catalog has the former cluster", func() error {
		if got := survivor.catalog.Snapshot().Formers(); !slices.Equal(got, []string{first}) {
			return errdef.New(errdef.NotReady, "%v", got)
		}
		return nil
	})
	survivor.crash()
	survivor.recovers()
	for _, n := range others {
		n.wipe()
	}
	f.start(others...)
	for _, n := range others {
		survivor.waitRole(n.cluster.Self(), RoleVoter)
		f.eventually(n.config.Name+" has noted the former clusters", func() error {
			if got := n.cluster.identity.current().formers(); !slices.Equal(got, []string{first, second}) {
				return errdef.New(errdef.NotReady, "%v", got)
			}
			return nil
		})
	}

	survivor.crash() // for good
	survivor.config.DataDir = old
	err := survivor.open()
	if errdef.ReasonOf(err) != errdef.ClusterMismatch || !strings.Contains(err.Error(), "was recovered as") {
		t.Errorf("a node of the first cluster: %v", err)
	}
	survivor.detach()
	others[0].waitNotice(first, "which was recovered as this one", "empty data director")
}

// A recovery beside a majority that serves empties nobody's disk: members that restart go on, be it that they have seen the
// fork before, be it that others prove to them that the cluster serves. Both sides say that something is to be done.
func TestMistakenRecovery(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	voters := f.prepare(3, 3)
	f.start(voters...)
	away := f.add(3, freeAddress(), voters[0].config.Join...)
	f.start(away)
	mistaken, serving := voters[0], voters[1:]
	mistaken.waitRole(away.cluster.Self(), RoleNonvoter)
	before := mistaken.cluster.ClusterID()
	mistaken.write("early")
	for _, n := range append(serving, away) {
		n.hasTags("early")
	}
	away.crash()
	mistaken.crash()
	serving[0].write("beside")
	fork := mistaken.recovers()
	for _, n := range serving {
		n.waitNotice(fork, "by mistake", "empty data directory")
		if got := n.cluster.identity.current().Forks; !slices.Equal(got, []string{fork}) {
			t.Errorf("%s has noted %v", n.config.Name, got)
		}
	}
	mistaken.waitNotice(before, "still serves")

	f.start(away) // it has not seen the fork, and asks
	away.hasTags("beside")
	serving[0].crash() // without it there is no quorum that could be asked
	f.start(serving[0])
	serving[0].write("after")
	away.hasTags("after")

	mistaken.crash()
	mistaken.wipe()
	f.start(mistaken)
	mistaken.hasTags("beside", "after")
}

// A node that has met a fork of its cluster refuses to go on, unless the recovery was a mistake. One that waits to rejoin has
// nothing to lose, and cannot tell.
func TestForkStopsMembersOnly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		own  record
		want errdef.Reason
	}{
		{"member", record{ClusterID: "old"}, errdef.ClusterMismatch},
		{"member that has noted a mistake", record{ClusterID: "old", Forks: []string{"new"}}, ""},
		{"member of another one", record{ClusterID: "other"}, ""},
		{"one that waits", record{Rejoin: &rejoin{ClusterID: "old", Was: "was"}}, ""},
	} {
		id := testIdentity(t, "n", "")
		must(t, id.change(func(r *record) { *r = c.own }))
		g := &gossip{config: &Config{}, identity: id, kin: map[string]kin{}, changed: make(chan struct{}, 1)}
		g.recognize(lineage{Cluster: "new", Node: "survivor", Formers: []string{"older", "old"}})
		if err := g.mismatch(); errdef.ReasonOf(err) != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// Voters that have lost their Raft state wait to be added by a quorum, and say so when there cannot be one; the survivor does,
// too.
func TestMajorityWithoutState(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	for _, n := range nodes {
		f.eventually("the voters are noted", func() error {
			if len(n.cluster.identity.current().Voters) != 3 {
				return errdef.New(errdef.NotReady, "not all")
			}
			return nil
		})
	}
	lose := func(nodes ...*node) {
		for _, n := range nodes {
			must(t, os.RemoveAll(filepath.Join(n.config.DataDir, raftDir)))
			n.start()
		}
	}
	for _, n := range nodes {
		n.crash()
	}
	lose(nodes[1])
	nodes[0].start()
	f.eventually("the survivor sees the one that lost its state", func() error {
		if s, _ := nodes[0].cluster.gossip.sighting(nodes[1].cluster.Self()); s.Was == "" {
			return errdef.New(errdef.NotReady, "%+v", s)
		}
		return nil
	})
	if got := nodes[0].cluster.Notices(); len(got) > 0 { // the third may come back
		t.Errorf("one of three: %q", got)
	}
	lose(nodes[2])
	for _, n := range nodes {
		n.waitNotice("2 of 3 voters", "ocistern recover --data-dir")
	}
	nodes[0].crash()
	lose(nodes[0])
	for _, n := range nodes {
		n.waitNotice("3 of 3 voters", "snapshot restore")
	}
}
