package client_test

import (
	"errors"
	"testing"
	"time"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/internal/errdef"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
	"github.com/ocistern/ocistern/internal/testnode"
)

func TestReadLevelIsAskedFor(t *testing.T) {
	for name, test := range map[string]struct {
		option client.Option
		level  registryv1.ReadLevel
		age    time.Duration
	}{
		"linearizable": {client.WithLinearizableReads(), registryv1.ReadLevel_READ_LEVEL_LINEARIZABLE, 0},
		"bounded":      {client.WithBoundedReads(3 * time.Second), registryv1.ReadLevel_READ_LEVEL_BOUNDED, 3 * time.Second},
	} {
		f := newFixture(t, 1)
		_, repository := f.open(t, test.option)
		if _, err := repository.Resolve(t.Context(), "v1"); err != nil {
			t.Fatal(err)
		}
		for _, call := range f.nodes[0].Calls() {
			if got, age := call.Target.GetLevel(), call.Target.GetMaxAge().AsDuration(); got != test.level || age != test.age {
				t.Errorf("%s: asked for %v within %s", name, got, age)
			}
		}
	}
	if _, err := client.New([]string{"127.0.0.1:1"}, client.WithBoundedReads(0)); !errors.Is(err, client.ErrConfigInvalid) {
		t.Errorf("a bound of nothing: %v", err)
	}
}

// A node that has not heard from the leader for too long is passed over; when all are too old, that is the answer.
func TestStaleNodesArePassedOver(t *testing.T) {
	f := newFixture(t, 3)
	_, repository := f.open(t, client.WithBoundedReads(time.Second))
	for i, node := range f.nodes {
		if _, err := repository.Resolve(t.Context(), "v1"); err != nil {
			t.Errorf("with %d stale nodes: %v", i, err)
		}
		node.Intercept(testnode.Failing(errdef.Stale))
	}
	if _, err := repository.Resolve(t.Context(), "v1"); !errors.Is(err, client.ErrStale) {
		t.Errorf("all nodes stale: %v", err)
	}
}
