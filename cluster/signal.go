package cluster

import (
	"context"
	"sync"
)

// signal wakes everybody who waits for "something changed".
type signal struct {
	mutex   sync.Mutex // guards channel
	channel chan struct{}
}

func newSignal() *signal { return &signal{channel: make(chan struct{})} }

// next returns a channel that the next broadcast closes. Take it before looking at what may change.
func (s *signal) next() <-chan struct{} {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.channel
}

func (s *signal) broadcast() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	close(s.channel)
	s.channel = make(chan struct{})
}

// relay broadcasts for each arrival on changes, until ctx ends.
func relay[T any](ctx context.Context, changes <-chan T, to *signal) {
	for {
		select {
		case <-changes:
			to.broadcast()
		case <-ctx.Done():
			return
		}
	}
}

// until returns a context that ends with ctx, and when changed is closed. Its CancelFunc must be called.
func until(ctx context.Context, changed <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-changed:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
