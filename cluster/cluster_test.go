package cluster

import (
	"testing"

	"github.com/ocistern/ocistern/internal/errdef"
)

// Three nodes that start in any order become one cluster; each takes writes; the leader dies and writes go on; all
// die and come back with everything.
func TestThreeNodes(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	id := nodes[0].cluster.ClusterID()
	for _, n := range nodes {
		if got := n.cluster.ClusterID(); got != id || id == "" {
			t.Fatalf("%s is of cluster %q, the first node of %q", n.config.Name, got, id)
		}
		if got := n.catalog.Snapshot().ClusterID(); got != id {
			t.Errorf("the catalog of %s is of cluster %q, want %q", n.config.Name, got, id)
		}
		f.eventually(n.config.Name+" sees all others alive", func() error {
			if got := n.cluster.Living(); len(got) != 3 {
				return errdef.New(errdef.NotReady, "it sees %v", got)
			}
			return nil
		})
	}
	for _, n := range nodes {
		index := n.write("through-" + n.config.Name)
		if _, err := nodes[0].catalog.Wait(t.Context(), index); err != nil {
			t.Fatal(err)
		}
		nodes[0].hasTags("through-" + n.config.Name)
	}

	dead := f.leader(nodes...)
	dead.crash()
	rest := without(nodes, dead)
	rest[0].write("after-the-leader")
	f.leader(rest...)
	dead.start()
	f.waitReady(dead)
	dead.hasTags("after-the-leader")

	for _, n := range nodes {
		n.crash()
	}
	f.start(nodes...)
	for _, n := range nodes {
		n.hasTags("through-n1", "through-n2", "through-n3", "after-the-leader")
		if got := n.cluster.ClusterID(); got != id {
			t.Errorf("%s came back in cluster %q, want %q", n.config.Name, got, id)
		}
	}
	nodes[1].write("after-all")
	f.sameDigest(nodes...)
}

func TestOneNode(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	n := f.prepare(1, 1)[0]
	f.start(n)
	n.write("alone")
	n.stop()
	f.start(n)
	n.hasTags("alone")
}

// A minority refuses writes soon, and says why.
func TestMinorityRefusesWrites(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	nodes[0].crash()
	nodes[1].crash()
	f.eventually("the node that is left refuses", func() error {
		_, err := nodes[2].cluster.Apply(t.Context(), push("lost"))
		if errdef.ReasonOf(err) != errdef.NoQuorum {
			return errdef.New(errdef.Internal, "got %v, want %s", err, errdef.NoQuorum)
		}
		return nil
	})
	nodes[0].start()
	nodes[2].write("with-a-quorum")
}
