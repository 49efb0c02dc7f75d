package client_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/internal/testnode"
)

// A client tells every node what it has seen, and refuses an answer from before that, by whichever node (guarantee G1).
func TestSessionNeverGoesBack(t *testing.T) {
	f := newFixture(t, 2)
	f.cluster.SetIndex(10)
	c, repository := f.open(t)
	if _, err := repository.Resolve(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	if c.CatalogIndex() != 10 {
		t.Fatalf("session index %d, want 10", c.CatalogIndex())
	}
	for _, broken := range f.nodes { // in turn: the client starts at either
		broken.Lag(3)
		if resolution, err := repository.ResolveDetailed(t.Context(), "v1"); err != nil || resolution.Provenance.CatalogIndex != 10 {
			t.Errorf("with one node behind: index %d, %v", resolution.Provenance.CatalogIndex, err)
		}
		broken.Lag(0)
	}
	f.each(func(n *testnode.Node) { n.Lag(3) })
	if resolution, err := repository.ResolveDetailed(t.Context(), "v1"); !errors.Is(err, client.ErrNotReady) {
		t.Errorf("all nodes behind: got index %d, %v", resolution.Provenance.CatalogIndex, err)
	}
	if _, err := repository.Predecessors(t.Context(), f.image); !errors.Is(err, client.ErrNotReady) {
		t.Errorf("referrers, all nodes behind: %v", err)
	}
	if _, err := repository.Fetch(t.Context(), f.image); err != nil {
		t.Errorf("content by digest cannot be too old: %v", err)
	}
	if c.CatalogIndex() != 10 {
		t.Errorf("content by digest from a node behind took the session back to %d", c.CatalogIndex())
	}
	for _, node := range f.nodes {
		for i, call := range node.Calls() {
			if call.Method == "GetStatus" { // about the node, not about content
				continue
			}
			if asked := call.Target.GetMinIndex(); asked != 10 && (i != 0 || asked != 0) {
				t.Errorf("call %d asked for index %d", i, asked)
			}
		}
	}
}

func TestSessionIndexUnderConcurrency(t *testing.T) {
	f := newFixture(t, 2)
	c, repository := f.open(t)
	var callers sync.WaitGroup
	for i := range 64 {
		callers.Go(func() {
			f.cluster.SetIndex(uint64(100 + i))
			before := c.CatalogIndex()
			_, _ = repository.Resolve(t.Context(), "v1") // may be refused: the index jumps back and forth here
			if after := c.CatalogIndex(); after < before {
				t.Errorf("session went back from %d to %d", before, after)
			}
		})
	}
	callers.Wait()
	f.cluster.SetIndex(1000)
	if _, err := repository.Resolve(t.Context(), "v1"); err != nil || c.CatalogIndex() != 1000 {
		t.Errorf("index %d, %v", c.CatalogIndex(), err)
	}
}

func TestTenantIsSent(t *testing.T) {
	f := newFixture(t, 1)
	_, repository := f.open(t, client.WithTenant("team-a"))
	if _, err := repository.Resolve(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	if tenant := f.nodes[0].Calls()[0].Target.GetTenant(); tenant != "team-a" {
		t.Errorf("tenant %q", tenant)
	}
}
