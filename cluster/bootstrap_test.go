package cluster

import (
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// clusters returns the ids of the clusters that nodes belong to.
func clusters(nodes []*node) []string {
	var ids []string
	for _, n := range nodes {
		if id := n.cluster.ClusterID(); id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// know makes a node see others as gossip would show them, alive and empty, and for ever so.
func (n *node) know(others ...*node) {
	g := n.cluster.gossip
	g.mutex.Lock()
	defer g.mutex.Unlock()
	for _, other := range others {
		g.sightings[other.cluster.Self()] = sighting{State: StateAlive, metadata: metadata{
			Raft: other.cluster.Addresses().Raft, Peer: other.cluster.Addresses().Peer,
		}}
	}
}

// Two proposers whose candidates overlap in one node race for its promise, again and again. Exactly one cluster comes
// out. The planted bug, a promise that is taken for granted, shows that this test would see two.
func TestOverlappingSetsMakeOneCluster(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		promise func(*Cluster, Promise) error
		want    int
	}{
		{"honest", func(c *Cluster, p Promise) error { return c.Promise(t.Context(), p) }, 1},
		{"planted bug", func(*Cluster, Promise) error { return nil }, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			var asked atomic.Int64
			f.promise = func(of *Cluster, p Promise) error {
				asked.Add(1)
				return c.promise(of, p)
			}
			nodes := make([]*node, 5)
			for i := range nodes {
				nodes[i] = f.add(3, freeAddress())
				nodes[i].start()
			}
			// The highest id is in both sets, so that a node proposes that knows of one set only.
			slices.SortFunc(nodes, func(a, b *node) int {
				return strings.Compare(string(a.cluster.Self()), string(b.cluster.Self()))
			})
			common := nodes[4]
			common.know(nodes[0], nodes[1], nodes[2], nodes[3])
			for _, set := range [][]*node{{nodes[0], nodes[1], common}, {nodes[2], nodes[3], common}} {
				set[0].know(set[1], set[2])
				set[1].know(set[0], set[2])
			}
			f.eventually("a cluster is made and the losers were refused many times", func() error {
				if len(clusters(nodes)) < c.want || asked.Load() < 20 && c.want == 1 {
					return errdef.New(errdef.NotReady, "%d clusters, %d promises", len(clusters(nodes)), asked.Load())
				}
				return nil
			})
			if got := clusters(nodes); len(got) != c.want {
				t.Errorf("there are clusters %v, want %d", got, c.want)
			}
		})
	}
}

// Five nodes where three are expected, with lists that overlap, find each other through real gossip while they start.
func TestTooManyNodesMakeAtMostOneCluster(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(5, 3)
	join := nodes[0].config.Join
	for i, n := range nodes {
		n.config.Join = [][]string{join[:3], join[:3], join[2:3], join[2:], join[2:]}[i]
	}
	for _, n := range nodes {
		n.start()
	}
	f.eventually("they agree, on one cluster or on none", func() error {
		belong := 0
		for _, n := range nodes {
			if n.cluster.identity.current().told() != "" {
				belong++
			} else if got := len(n.cluster.gossip.seen()); got != 4 {
				return errdef.New(errdef.NotReady, "%s sees %d others", n.config.Name, got)
			}
		}
		if belong != 0 && (belong != 5 || len(clusters(nodes)) == 0) {
			return errdef.New(errdef.NotReady, "%d nodes belong to clusters %v", belong, clusters(nodes))
		}
		return nil
	})
	if got := clusters(nodes); len(got) > 1 {
		t.Errorf("there are clusters %v", got)
	}
}

// One empty node less than expected, or an address that does not answer, and there is no cluster.
func TestNoClusterWithoutAll(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		running int
		expect  int
		want    string
	}{
		{"one is missing", 2, 3, "found 2 of 3"},
		{"one to join does not answer", 1, 1, "not every address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			nodes := f.prepare(c.running, c.expect)
			if c.expect == 1 {
				nodes[0].config.Join = append(nodes[0].config.Join, freeAddress())
			}
			for _, n := range nodes {
				n.start()
			}
			f.eventually("the nodes wait", func() error {
				for _, n := range nodes {
					err := n.cluster.Ready()
					if errdef.ReasonOf(err) != errdef.NotReady || !strings.Contains(err.Error(), c.want) {
						return errdef.New(errdef.Internal, "got %v, want %q", err, c.want)
					}
				}
				return nil
			})
			if _, err := nodes[0].cluster.Apply(t.Context(), push("early")); errdef.ReasonOf(err) != errdef.NoQuorum {
				t.Errorf("a write without a cluster got %v", err)
			}
			if got := clusters(nodes); len(got) != 0 {
				t.Errorf("there are clusters %v", got)
			}
		})
	}
}

// A promise binds, to its own cluster only, until it is released, also when the node starts again.
func TestPromiseBinds(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	n := f.add(2, freeAddress())
	n.start()
	candidates := []Candidate{{ID: n.cluster.Self(), RaftAddress: "host:1"}, {ID: "zz", RaftAddress: "host:2"}}
	promise := func(cluster string, proposer catalog.NodeID) Promise {
		return Promise{ClusterID: cluster, Proposer: proposer, Candidates: candidates}
	}
	ask := func(p Promise, want errdef.Reason) {
		t.Helper()
		if err := n.cluster.Promise(t.Context(), p); errdef.ReasonOf(err) != want {
			t.Errorf("promise to %s: got %v, want %q", p.ClusterID, err, want)
		}
	}
	f.eventually("the first promise is given", func() error {
		return n.cluster.Promise(t.Context(), promise("one", "zz"))
	})
	ask(promise("one", "zz"), "")
	ask(promise("two", "zz"), errdef.ClusterMismatch)
	ask(promise("one", n.cluster.Self()), errdef.ClusterMismatch)
	n.crash()
	n.start()
	ask(promise("two", "zz"), errdef.ClusterMismatch)
	ask(promise("one", "zz"), "")
	if got := n.cluster.State(); got.ClusterID != "one" || !got.Empty {
		t.Errorf("a promised node says %+v", got)
	}
	if err := n.cluster.Release(t.Context(), promise("two", "zz")); err != nil {
		t.Error(err)
	}
	ask(promise("two", "zz"), errdef.ClusterMismatch)
	if err := n.cluster.Release(t.Context(), promise("one", "zz")); err != nil {
		t.Error(err)
	}
	f.eventually("a released node promises itself again", func() error {
		return n.cluster.Promise(t.Context(), promise("two", "zz"))
	})

	lone := Promise{ClusterID: "three", Proposer: "zz", Candidates: candidates[:1]}
	ask(lone, errdef.CommandInvalid)
	crowd := Promise{ClusterID: "three", Proposer: "zz", Candidates: append(candidates, Candidate{ID: "zzz"})}
	ask(crowd, errdef.ConfigInvalid)
	if err := n.cluster.identity.join("two"); err != nil {
		t.Fatal(err)
	}
	if err := n.cluster.Release(t.Context(), promise("two", "zz")); errdef.ReasonOf(err) != errdef.ClusterMismatch {
		t.Errorf("a member is released: %v", err)
	}
	ask(promise("three", "zz"), errdef.ClusterMismatch)
}

// prepared opens the disks of nodes without starting them.
func prepared(t *testing.T, nodes []*node, change func(i int, s *storage, id *identity)) []Candidate {
	t.Helper()
	candidates := make([]Candidate, len(nodes))
	for pass := range 2 { // the ids first
		for i, n := range nodes {
			cfg, err := n.config.complete()
			must(t, err)
			s, err := openStorage(cfg, nil, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			id, err := openIdentity(n.config.DataDir, s)
			if err != nil {
				t.Fatal(err)
			}
			if candidates[i] = (Candidate{ID: id.current().ID, RaftAddress: n.config.Listen.Raft}); pass == 1 {
				change(i, s, id)
			}
			if err := s.close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return candidates
}

// Whatever instant of a bootstrap the power failed at, one cluster comes out: the one that was begun if there can
// have been a commit in it.
func TestBootstrapAfterCrash(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		crash func(t *testing.T, i int, p Promise, s *storage, id *identity)
		begun bool // the cluster that was begun must be the one that comes out
	}{
		{"proposer had promised itself", func(t *testing.T, i int, p Promise, _ *storage, id *identity) {
			if i == 0 {
				must(t, id.pledge(p))
			}
		}, false},
		{"all had promised themselves", func(t *testing.T, _ int, p Promise, _ *storage, id *identity) {
			must(t, id.pledge(p))
		}, false},
		{"proposer had bootstrapped", func(t *testing.T, i int, p Promise, s *storage, id *identity) {
			must(t, id.pledge(p))
			if i == 0 {
				bootstrapOnDisk(t, p, s)
			}
		}, true},
		{"proposer had withdrawn, nobody heard of it", func(t *testing.T, i int, p Promise, _ *storage, id *identity) {
			if i != 0 {
				must(t, id.pledge(p))
			}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			nodes := f.prepare(3, 3)
			p := Promise{ClusterID: "begun"}
			p.Candidates = prepared(t, nodes, func(int, *storage, *identity) {})
			p.Proposer = p.Candidates[0].ID
			prepared(t, nodes, func(i int, s *storage, id *identity) { c.crash(t, i, p, s, id) })
			f.start(nodes...)
			if got := clusters(nodes); len(got) != 1 || c.begun && got[0] != p.ClusterID {
				t.Errorf("there are clusters %v, begun was %s", got, p.ClusterID)
			}
			nodes[2].write("works")
		})
	}
}

// A proposer whose Raft is bootstrapped becomes a member of that cluster, even when the other candidates refuse by
// now: a promise that was withdrawn at that point would leave Raft with the configuration of one cluster and the name
// of another.
func TestBootstrapIsNeverTakenBack(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.promise = func(*Cluster, Promise) error { return errdef.New(errdef.ClusterMismatch, "changed my mind") }
	n := f.add(2, freeAddress())
	n.start()
	self := Candidate{ID: n.cluster.Self(), RaftAddress: n.cluster.Addresses().Raft}
	candidates := []Candidate{self, {ID: "zz", RaftAddress: "host:1"}}
	p := Promise{ClusterID: "begun", Proposer: self.ID, Candidates: candidates}
	must(t, n.cluster.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{
		{ID: raft.ServerID(self.ID), Address: raft.ServerAddress(self.RaftAddress)}, {ID: "zz", Address: "host:1"},
	}}).Error())
	must(t, n.cluster.identity.pledge(p))
	f.eventually("the node is a member", func() error {
		if got := n.cluster.ClusterID(); got != p.ClusterID {
			return errdef.New(errdef.NotReady, "it belongs to %q", got)
		}
		return nil
	})
}

func bootstrapOnDisk(t *testing.T, p Promise, s *storage) {
	t.Helper()
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger = raft.ServerID(p.Proposer), newHCLogger(slog.New(slog.DiscardHandler), "raft")
	configuration := raft.Configuration{}
	for _, candidate := range p.Candidates {
		configuration.Servers = append(configuration.Servers,
			raft.Server{ID: raft.ServerID(candidate.ID), Address: raft.ServerAddress(candidate.RaftAddress)})
	}
	_, transport := raft.NewInmemTransport("")
	must(t, raft.BootstrapCluster(conf, s.logs, s.stable, s.snapshots, transport, configuration))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
