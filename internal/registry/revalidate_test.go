package registry

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/fill"
	"github.com/ocistern/ocistern/internal/reference"
)

// answering is an upstream that answers as it is told, or not at all.
type answering struct {
	Fill
	err    error
	silent bool
	asked  atomic.Int32
}

func (a *answering) Refresh(ctx context.Context, _ fill.Key, _ catalog.LogIndex) (catalog.LogIndex, error) {
	a.asked.Add(1)
	if a.silent {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return 1, a.err
}

func keyOf(repository string) fill.Key {
	return fill.Key{Repository: reference.Repository(repository), Kind: fill.KindTag, Reference: "v1"}
}

func counts(r *revalidations) (busy, running, paused int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.busy), len(r.running), r.paused
}

// Calls come faster than an upstream fails: it is asked once, and again after a pause. A definite 404 is no failure.
func TestPauseAfterAFailedRevalidation(t *testing.T) {
	for _, c := range []struct {
		err  error
		asks int32
	}{
		{errdef.New(errdef.UpstreamThrottled, "planted"), 1},
		{errdef.New(errdef.NotFound, "planted"), 10},
		{nil, 10},
	} {
		synctest.Test(t, func(t *testing.T) {
			upstream := &answering{err: c.err}
			r := newRevalidations(upstream)
			burst := func() {
				for range 10 {
					r.start(keyOf("up.test/app"), 0)
					begun()
				}
			}
			burst()
			if asked := upstream.asked.Load(); asked != c.asks {
				t.Errorf("%v: asked %d times", c.err, asked)
			}
			<-time.After(failurePause)
			synctest.Wait()
			burst()
			if asked := upstream.asked.Load(); asked != 2*c.asks {
				t.Errorf("%v: asked %d times after the pause", c.err, asked)
			}
			<-time.After(failurePause)
			synctest.Wait()
			if busy, running, paused := counts(r); busy+running+paused != 0 {
				t.Errorf("left behind: %d busy, %d running, %d paused", busy, running, paused)
			}
		})
	}
}

// begun waits, in a bubble, until what was started has asked.
func begun() {
	<-time.After(revalidationDelay)
	synctest.Wait()
}

// A silent upstream holds a bounded number of revalidations for a bounded time, and those of other upstreams go on.
func TestRevalidationsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		upstream := &answering{silent: true}
		r := newRevalidations(upstream)
		for i := range 2 * maxRevalidations {
			r.start(keyOf(fmt.Sprintf("silent.test/%d", i)), 0)
		}
		r.start(keyOf("other.test/app"), 0)
		begun()
		if asked := upstream.asked.Load(); asked != maxRevalidations+1 {
			t.Errorf("%d are under way", asked)
		}
		<-time.After(revalidationTime)
		synctest.Wait()
		if busy, running, paused := counts(r); busy != maxRevalidations+1 || running != 0 || paused != busy {
			t.Errorf("after their time: %d busy, %d running, %d paused", busy, running, paused)
		}
		<-time.After(failurePause)
		synctest.Wait()
	})
}
