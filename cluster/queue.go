package cluster

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

const (
	// maxQueued bounds the requests that wait on the leader: half a second of work at the highest rate that was measured.
	// Whoever came behind them would wait in vain more often than not.
	maxQueued = 4096
	// maxQueuedBytes bounds their commands: eight of the largest.
	maxQueuedBytes = 8 * fsm.MaxCommandBytes
	// maxBatch and maxBatchBytes bound one entry. Raft suggests the latter: an entry must pass in a fraction of a heartbeat.
	// A larger command is an entry by itself.
	maxBatch      = 1024
	maxBatchBytes = raft.SuggestedMaxDataSize
	// entriesInFlight is how many entries may wait for their commit: one is written by the leader while another one is by
	// the followers, and the next one gathers. More would only be smaller ones.
	entriesInFlight = 2
)

// submission is a request on its way into the log.
type submission struct {
	fsm.Request
	ctx     context.Context
	claimed atomic.Bool
	done    chan catalog.Result // buffered; Err may also be Raft's (see applyError)
	place   int                 // among those of its call
}

// claim decides what becomes of a submission, once: it is packed, or whoever waits for it gives up and it is certainly not.
func (s *submission) claim() bool { return s.claimed.CompareAndSwap(false, true) }

// queue gathers submissions on the leader while earlier ones are on their way.
type queue struct {
	mutex   sync.Mutex // guards waiting and bytes
	waiting []*submission
	bytes   int
	wake    chan struct{} // holds a token while something may wait
	slots   chan struct{} // holds one for each entry in flight
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), slots: make(chan struct{}, entriesInFlight)}
}

// add puts submissions at the end, next to each other. Those for which too much waits already are told so, with reason
// OVERLOADED, and so is the caller.
func (q *queue) add(all ...*submission) (full error) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	for _, s := range all {
		if len(q.waiting) >= maxQueued || q.bytes+len(s.Command) > maxQueuedBytes {
			full = errdef.New(errdef.Overloaded, "not submitted: %d requests of %d bytes wait on the leader",
				len(q.waiting), q.bytes).WithRemedy("try again later, or with fewer requests at a time")
			s.done <- catalog.Result{Err: full}
			continue
		}
		q.waiting, q.bytes = append(q.waiting, s), q.bytes+len(s.Command)
	}
	q.poke()
	return full
}

// poke says that something waits.
func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns what fits into the next entry, oldest first. Those that nobody waits for any more are dropped.
func (q *queue) take() []*submission {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	var batch []*submission
	seen, size := 0, 0
	for _, s := range q.waiting {
		if len(batch) == maxBatch || len(batch) > 0 && size+s.PackedSize() > maxBatchBytes {
			q.poke()
			break
		}
		seen++
		q.bytes -= len(s.Command)
		if s.ctx.Err() == nil && s.claim() {
			batch, size = append(batch, s), size+s.PackedSize()
		}
	}
	left := copy(q.waiting, q.waiting[seen:])
	clear(q.waiting[left:])
	q.waiting = q.waiting[:left]
	return batch
}

// busy tells whether there is more to come than the one entry that has just been committed.
func (q *queue) busy() bool {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	return len(q.slots) > 1 || len(q.waiting) > 0
}

// awaitResult returns what became of a submission that was added to the queue.
func (c *Cluster) awaitResult(ctx context.Context, s *submission) (catalog.LogIndex, error) {
	select {
	case result := <-s.done:
		return result.Index, result.Err
	case <-ctx.Done():
		return s.giveUp(ctx.Err(), errdef.ReasonOf(ctx.Err()))
	case <-c.lifetime.Done():
		return s.giveUp(raft.ErrRaftShutdown, errdef.NotLeader)
	}
}

// giveUp returns what is certain when a caller cannot wait any longer.
func (s *submission) giveUp(cause error, unsent errdef.Reason) (catalog.LogIndex, error) {
	if s.claim() {
		return 0, errdef.Wrap(unsent, cause, "not submitted")
	}
	select {
	case result := <-s.done: // at the last moment
		return result.Index, result.Err
	default:
		return 0, applyError(cause)
	}
}

// pack turns what waits into entries, one after the other, until the node shuts down. It never waits for more to come:
// entries grow by themselves while others are in flight.
func (c *Cluster) pack() {
	for {
		select {
		case <-c.writes.wake:
		case <-c.lifetime.Done():
			return
		}
		select {
		case c.writes.slots <- struct{}{}:
		case <-c.lifetime.Done():
			return
		}
		batch := c.writes.take()
		if len(batch) == 0 {
			<-c.writes.slots
			continue
		}
		requests := make([]fsm.Request, len(batch))
		for i, s := range batch {
			requests[i] = s.Request
		}
		future := c.raft.Apply(fsm.Pack(requests), c.config.Timings.Patience)
		c.workers.Go(func() {
			defer func() { <-c.writes.slots }()
			results, err := c.outcome(c.lifetime, future)
			for i, s := range batch {
				if err != nil {
					s.done <- catalog.Result{Err: err}
				} else {
					s.done <- results[i]
				}
			}
		})
	}
}
