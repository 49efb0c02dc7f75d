package registry_test

import (
	"context"
	"testing"
	"time"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
	"github.com/ocistern/ocistern/internal/registry/registrytest"
)

// consensus is a node that hears of a write only when it asks for a read index.
type consensus struct {
	ask func() (catalog.LogIndex, error)
	age time.Duration
}

func (c consensus) ReadIndex(context.Context) (catalog.LogIndex, error) { return c.ask() }
func (c consensus) ContactAge() time.Duration                           { return c.age }

func TestLevels(t *testing.T) {
	f := registrytest.New(t)
	write := func() (catalog.LogIndex, error) { // by another client, on another node
		f.Apply(t, catalog.Publish{
			Tenant: reference.DefaultTenant, Repository: registrytest.Hosted, Source: catalog.SourcePushed,
			Tags: []catalog.TagUpdate{{Name: "elsewhere", Descriptor: f.Image.Descriptor}},
		})
		return f.Catalog.Snapshot().Index(), nil
	}
	noQuorum := func() (catalog.LogIndex, error) { return 0, errdef.New(errdef.NoQuorum, "planted") }
	for _, test := range []struct {
		name      string
		level     registry.Level
		consensus consensus
		tag       reference.Tag
		want      errdef.Reason
	}{
		{"a session does not ask the leader", registry.LevelSession, consensus{ask: write}, "elsewhere", errdef.NotFound},
		{"a linearizable read fails without a quorum", registry.LevelLinearizable, consensus{ask: noQuorum}, "v1", errdef.NoQuorum},
		{"a bounded read inside its bound", registry.LevelBounded, consensus{ask: noQuorum, age: time.Second}, "v1", ""},
		{"a bounded read outside its bound", registry.LevelBounded, consensus{age: 2 * time.Second}, "v1", errdef.Stale},
		{"a linearizable read sees what was written", registry.LevelLinearizable, consensus{ask: write}, "elsewhere", ""},
	} {
		cache := registry.New(registry.Config{
			Catalog: f.Catalog, Store: f.Store, Fill: f.Upstream, Consensus: test.consensus, Ready: func() error { return nil },
		})
		target := registrytest.Tag(registrytest.Hosted, test.tag)
		target.Level, target.MaxAge = test.level, time.Second
		if _, err := cache.Resolve(t.Context(), registrytest.Caller(), target); errdef.ReasonOf(err) != test.want {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}
