package cluster

import (
	"context"
	"sync"

	"github.com/ocistern/ocistern/fsm/catalog"
)

// rounds lets any number of readers share one answer. A round begins after all who share it have come, so that none gets
// an answer older than its question.
type rounds struct {
	mutex   sync.Mutex // guards pending
	pending *round     // gathers readers; nil when nobody waits for the next round
	wake    chan struct{}
}

// round is one answer. index and err are set before done is closed.
type round struct {
	done  chan struct{}
	index catalog.LogIndex
	err   error
}

func newRounds() *rounds { return &rounds{wake: make(chan struct{}, 1)} }

// join returns a round that has not begun yet.
func (r *rounds) join() *round {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.pending == nil {
		r.pending = &round{done: make(chan struct{})}
		r.wake <- struct{}{} // never full: serve took the last one before it took the last round
	}
	return r.pending
}

// serve runs one round after the other until ctx ends. What is pending then stays without an answer.
func (r *rounds) serve(ctx context.Context, run func() (catalog.LogIndex, error)) {
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		r.mutex.Lock()
		next := r.pending
		r.pending = nil
		r.mutex.Unlock()
		next.index, next.err = run()
		close(next.done)
	}
}
