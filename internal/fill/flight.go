package fill

import (
	"context"
	"runtime"
	"sync"

	"github.com/ocistern/ocistern/internal/errdef"
)

// flights runs at most one flight per key. A flight runs on a context of its own: callers that leave do not stop it.
type flights[K comparable, V any] struct {
	life context.Context
	stop context.CancelFunc

	// mu guards running and closed.
	mu      sync.Mutex
	running map[K]*flight[V]
	closed  bool
	ended   sync.WaitGroup
}

// flight is one run. value and err are set before ready is closed and never change afterwards.
type flight[V any] struct {
	ready chan struct{}
	value V
	err   error
}

func newFlights[K comparable, V any]() *flights[K, V] {
	life, stop := context.WithCancel(context.Background())
	return &flights[K, V]{life: life, stop: stop, running: map[K]*flight[V]{}}
}

// pilot is what a run may do while it flies.
type pilot[V any] struct {
	// announce gives the value to all who wait, at most once. The run goes on, and the flight stays joinable.
	announce func(V)
	// forget makes the flight joinable no more: the next caller starts a new one.
	forget func()
}

// join waits for the value of the flight of key, which it starts with run when there is none; joined tells which. An
// error that run returns after having announced reaches nobody, so run must have dealt with it. join fails with
// DEADLINE or CANCELED when ctx ends, and with UNAVAILABLE after close.
func (f *flights[K, V]) join(
	ctx context.Context, key K, run func(life context.Context, pilot pilot[V]) (V, error),
) (value V, joined bool, err error) {
	f.mu.Lock()
	current, joined := f.running[key]
	if !joined {
		if f.closed {
			f.mu.Unlock()
			return value, false, errdef.New(errdef.Unavailable, "this node is shutting down")
		}
		current = &flight[V]{ready: make(chan struct{})}
		f.running[key] = current
		f.ended.Go(func() { f.fly(key, current, run) })
	}
	f.mu.Unlock()
	select {
	case <-current.ready:
		return current.value, joined, current.err
	case <-ctx.Done():
		return value, joined, errdef.Wrap(errdef.ReasonOf(ctx.Err()), ctx.Err(), "waiting for a fill")
	}
}

func (f *flights[K, V]) fly(key K, current *flight[V], run func(context.Context, pilot[V]) (V, error)) {
	announced := false
	announce := func(value V) {
		announced = true
		current.value = value
		close(current.ready)
		runtime.Gosched() // the callers first: what follows is not for them
	}
	forget := func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.running[key] == current {
			delete(f.running, key)
		}
	}
	value, err := run(f.life, pilot[V]{announce, forget})
	forget() // first: whoever learns the outcome and is not content with it must be able to start anew
	if !announced {
		current.value, current.err = value, err
		close(current.ready)
	}
}

// count returns how many flights may be joined.
func (f *flights[K, V]) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.running)
}

// close cancels all flights, waits for them, and makes join refuse new ones.
func (f *flights[K, V]) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.stop()
	f.ended.Wait()
}
