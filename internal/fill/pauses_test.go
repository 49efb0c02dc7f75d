package fill

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// noPauses is budget.Pauses where nobody else knows anything.
type noPauses struct{}

func (noPauses) Until(string) time.Time { return time.Time{} }
func (noPauses) Tell(string, time.Time) {}

func one() int { return 1 }

// throttled answers with a Retry-After until it is let go.
type throttled struct {
	after   string
	healed  atomic.Bool
	refused atomic.Int32
}

func (s *throttled) spoil(w http.ResponseWriter, _ *http.Request) bool {
	if s.healed.Load() {
		return false
	}
	s.refused.Add(1)
	w.Header().Set("Retry-After", s.after)
	w.WriteHeader(http.StatusTooManyRequests)
	return true
}

func throttledCluster(t *testing.T, after string) (*testCluster, *throttled) {
	t.Helper()
	r := newTestRegistry(t)
	r.pushImage("org/app", "v1", []byte("layer"))
	spoiler := &throttled{after: after}
	r.setSpoil(spoiler.spoil)
	c := newTestCluster(t, r)
	if _, err := c.Apply(t.Context(), catalog.RaiseLevel{Level: catalog.LevelRequests}); err != nil {
		t.Fatal(err)
	}
	return c, spoiler
}

// TestAPauseIsKnownToAllNodes: the node that was told to wait tells the others; none of them asks, and callers who cannot
// wait are told at once, whatever they ask for.
func TestAPauseIsKnownToAllNodes(t *testing.T) {
	c, spoiler := throttledCluster(t, "120")
	key := Key{testTenant, testRepository, KindTag, "v1"}
	_, err := c.nodes[0].router.Refresh(t.Context(), key, 0)
	expect(t, "the one that asks", err, errdef.UpstreamThrottled)
	for _, n := range c.nodes {
		snapshot, err := n.catalog.Wait(t.Context(), 2) // after the feature level
		if err != nil {
			t.Fatal(err)
		}
		backoff, known := snapshot.Backoff("up.test")
		if left := time.Until(backoff.Until); !known || left < time.Minute || left > 2*time.Minute {
			t.Errorf("node %s knows %+v", n.id, backoff)
		}
		for _, tag := range []string{"v1", "v2", "v3"} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			asked := time.Now()
			_, err = n.router.Refresh(ctx, Key{testTenant, testRepository, KindTag, tag}, 0)
			expect(t, "node "+string(n.id), err, errdef.UpstreamThrottled)
			if took := time.Since(asked); took > 5*time.Second {
				t.Errorf("node %s told it after %s", n.id, took)
			}
			if !strings.Contains(err.Error(), "until") {
				t.Errorf("the error does not say until when: %v", err)
			}
			cancel()
		}
	}
	if refused := spoiler.refused.Load(); refused != 1 {
		t.Errorf("the upstream was asked %d times", refused)
	}
}

// TestAShortPauseIsWaitedFor: who can wait for its end gets the answer, and the upstream is not asked before.
func TestAShortPauseIsWaitedFor(t *testing.T) {
	c, spoiler := throttledCluster(t, "1")
	var begun time.Time
	c.setSpoil(func(w http.ResponseWriter, r *http.Request) bool {
		if begun.IsZero() {
			begun = time.Now()
			return spoiler.spoil(w, r)
		}
		if early := time.Second - time.Since(begun); early > 20*time.Millisecond {
			t.Errorf("asked %s too early", early)
		}
		return false
	})
	var callers sync.WaitGroup
	for _, n := range c.nodes {
		callers.Go(func() {
			if _, err := n.router.Refresh(t.Context(), Key{testTenant, testRepository, KindTag, "v1"}, 0); err != nil {
				t.Errorf("node %s: %v", n.id, err)
			}
		})
	}
	callers.Wait()
}

// TestPausesWithoutAQuorum: the node that was told keeps to it all the same.
func TestPausesWithoutAQuorum(t *testing.T) {
	c, spoiler := throttledCluster(t, "120")
	c.set(func(c *testCluster) { c.noQuorum = true })
	for _, tag := range []string{"v1", "v2"} {
		_, err := c.nodes[0].filler.Refresh(t.Context(), Key{testTenant, testRepository, KindTag, tag}, 0)
		expect(t, tag, err, errdef.UpstreamThrottled)
	}
	if refused := spoiler.refused.Load(); refused != 1 {
		t.Errorf("the upstream was asked %d times", refused)
	}
}
