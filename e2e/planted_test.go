package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ocistern/ocistern/e2e/nodes"
)

// The check that ends every script bites: nodes of two clusters never come to hold the same catalog.
func TestSameCatalogNoticesADifferentOne(t *testing.T) {
	var all []*nodes.Node
	for _, name := range []string{"a", "b"} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		cluster, err := nodes.Prepare(nodes.Options{Binary: os.Getenv(binaryVariable), Dir: dir, Count: 1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := cluster.Close(); err != nil {
				t.Error(err)
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := cluster.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := cluster.SameCatalog(ctx); err != nil {
			t.Fatalf("one node alone: %v", err)
		}
		all = append(all, cluster.Nodes()...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := nodes.SameCatalog(ctx, all)
	if err == nil || !strings.Contains(err.Error(), "different catalogs") {
		t.Errorf("got %v, want the catalogs of two clusters to be told apart", err)
	}
}
