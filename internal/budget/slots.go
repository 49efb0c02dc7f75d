package budget

import (
	"cmp"
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
)

// slots bounds the requests in flight. Who waits is served in the order of the deadlines; who would be served too late is
// told at once.
type slots struct {
	// mutex guards all below.
	mutex   sync.Mutex
	size    int
	taken   int
	waiting waiters
	arrived uint64
	usual   time.Duration // how long a slot is taken, a moving average
}

// maxWaiting bounds the memory for those who wait.
const maxWaiting = 4096

type waiter struct {
	deadline time.Time // zero for none: served last
	arrived  uint64
	place    int // in the heap, -1 outside
	granted  chan struct{}
}

func newSlots() *slots { return &slots{} }

func (s *slots) resize(size int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.size = size
	s.serve()
}

// take waits for a slot.
func (s *slots) take(ctx context.Context, upstream string) error {
	w, err := s.enqueue(ctx, upstream)
	if err != nil {
		return err
	}
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if w.place < 0 { // granted in this moment
		s.release()
	} else {
		heap.Remove(&s.waiting, w.place)
	}
	return errdef.Wrap(errdef.ReasonOf(ctx.Err()), ctx.Err(), "waiting for one of %d requests to upstream %s to end", s.size, upstream)
}

func (s *slots) enqueue(ctx context.Context, upstream string) (*waiter, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.arrived++
	w := &waiter{arrived: s.arrived, granted: make(chan struct{})}
	deadline, bounded := ctx.Deadline()
	if bounded {
		w.deadline = deadline
	}
	ahead := s.waiting.ahead(w)
	wait := s.usual * time.Duration(ahead+1) / time.Duration(max(s.size, 1))
	switch {
	case s.taken < s.size && ahead == 0:
	case bounded && time.Now().Add(wait).After(deadline), len(s.waiting) >= maxWaiting:
		return nil, errdef.New(errdef.UpstreamThrottled, "upstream %s has %d requests in flight, and %d wait before this one",
			upstream, s.taken, ahead).WithRemedy("allow more than %s, or raise the concurrency of the upstream", wait.Round(time.Millisecond))
	}
	heap.Push(&s.waiting, w)
	s.serve()
	return w, nil
}

// give gives a slot back that was taken for some time; 0 for one that was not used.
func (s *slots) give(used time.Duration) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if used > 0 {
		s.usual += (used - s.usual) / 8
	}
	s.release()
}

// release frees a slot. The caller holds mutex.
func (s *slots) release() {
	s.taken--
	s.serve()
}

// serve grants the slots that are free. The caller holds mutex.
func (s *slots) serve() {
	for s.taken < s.size && len(s.waiting) > 0 {
		w := heap.Pop(&s.waiting).(*waiter)
		s.taken++
		close(w.granted)
	}
}

// waiters is a heap by deadline, those without one last.
type waiters []*waiter

// before tells whether a is served first.
func before(a, b *waiter) bool {
	if a.deadline.IsZero() != b.deadline.IsZero() {
		return b.deadline.IsZero()
	}
	return cmp.Or(a.deadline.Compare(b.deadline), cmp.Compare(a.arrived, b.arrived)) < 0
}

// ahead counts who is served before w.
func (h waiters) ahead(w *waiter) int {
	count := 0
	for _, other := range h {
		if before(other, w) {
			count++
		}
	}
	return count
}

// Len implements heap.Interface.
func (h waiters) Len() int { return len(h) }

// Less implements heap.Interface.
func (h waiters) Less(i, j int) bool { return before(h[i], h[j]) }

// Swap implements heap.Interface.
func (h waiters) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push implements heap.Interface.
func (h *waiters) Push(x any) {
	w := x.(*waiter)
	w.place = len(*h)
	*h = append(*h, w)
}

// Pop implements heap.Interface.
func (h *waiters) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last], *h = nil, (*h)[:last]
	w.place = -1
	return w
}
