package registry

import (
	"context"
	"sync"
	"time"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/fill"
)

const (
	// maxRevalidations bounds what is asked of one upstream in the background at one time. What is above that is given all
	// the same, and renewed by a later call.
	maxRevalidations = 64
	// revalidationDelay lets the answer that begins one go first: it must not wait for a processor.
	revalidationDelay = 10 * time.Millisecond
	// revalidationTime bounds one of them; package fill has time-outs of its own.
	revalidationTime = time.Minute
	// failurePause is how long a key is left alone after its upstream could not be asked; else each call would ask again.
	// At most maxPaused are.
	failurePause = 5 * time.Second
	maxPaused    = 4096
)

// revalidations asks upstreams in the background, at most once at a time for a key.
type revalidations struct {
	fill Fill

	// mu guards what follows.
	mu      sync.Mutex
	busy    map[fill.Key]bool // asked now, or in vain lately
	running map[string]int    // of busy, those asked now, by upstream
	paused  int               // of busy, the others
}

func newRevalidations(f Fill) *revalidations {
	return &revalidations{fill: f, busy: map[fill.Key]bool{}, running: map[string]int{}}
}

// start begins to ask about a key unless that goes on already. It does not wait. Nobody is told of a failure: the caller
// has an answer, and past the time to revalidate in the upstream is asked while callers wait.
func (r *revalidations) start(key fill.Key, seen catalog.LogIndex) {
	upstream, _ := key.Repository.UpstreamHost()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[key] || r.running[upstream] >= maxRevalidations {
		return
	}
	r.busy[key] = true
	r.running[upstream]++
	time.AfterFunc(revalidationDelay, func() { r.ask(key, seen) })
}

func (r *revalidations) ask(key fill.Key, seen catalog.LogIndex) {
	ctx, cancel := context.WithTimeout(context.Background(), revalidationTime)
	defer cancel()
	_, err := r.fill.Refresh(ctx, key, seen)
	failed := err != nil && errdef.ReasonOf(err) != errdef.NotFound // a definite 404 is an answer
	upstream, _ := key.Repository.UpstreamHost()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running[upstream]--; r.running[upstream] == 0 {
		delete(r.running, upstream)
	}
	if !failed || r.paused >= maxPaused {
		delete(r.busy, key)
		return
	}
	r.paused++
	time.AfterFunc(failurePause, func() { r.resume(key) })
}

func (r *revalidations) resume(key fill.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused--
	delete(r.busy, key)
}
