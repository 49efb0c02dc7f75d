package cluster

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

func submit(ctx context.Context, bytes int) *submission {
	return &submission{
		Request: fsm.Request{Command: make([]byte, bytes)}, ctx: ctx, done: make(chan catalog.Result, 1),
	}
}

// The queue is bounded by number and by bytes, and has room again for what was taken.
func TestQueueIsBounded(t *testing.T) {
	for name, c := range map[string]struct{ bytes, fit int }{
		"number": {10, maxQueued}, "bytes": {maxQueuedBytes / 4, 4},
	} {
		q := newQueue()
		for range c.fit {
			must(t, q.add(submit(t.Context(), c.bytes)))
		}
		if err := q.add(submit(t.Context(), c.bytes)); errdef.ReasonOf(err) != errdef.Overloaded {
			t.Errorf("%s: got %v, want %s", name, err, errdef.Overloaded)
		}
		taken := len(q.take())
		for range taken {
			must(t, q.add(submit(t.Context(), c.bytes)))
		}
		if err := q.add(submit(t.Context(), c.bytes)); errdef.ReasonOf(err) != errdef.Overloaded {
			t.Errorf("%s, after %d were taken: got %v, want %s", name, taken, err, errdef.Overloaded)
		}
		left := 0
		for batch := q.take(); len(batch) > 0; batch = q.take() {
			left += len(batch)
		}
		if left != c.fit || q.bytes != 0 || len(q.waiting) != 0 {
			t.Errorf("%s: %d were left, %d bytes and %d requests still count", name, left, q.bytes, len(q.waiting))
		}
	}
}

// An entry takes as much as fits, in order, and leaves out what nobody waits for any more.
func TestTake(t *testing.T) {
	q := newQueue()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	gone, large := submit(ended, 10), submit(t.Context(), maxBatchBytes+1)
	withdrawn := submit(t.Context(), 10)
	withdrawn.claim()
	small := submit(t.Context(), 10)
	for _, s := range []*submission{gone, small, withdrawn, large, submit(t.Context(), 10)} {
		must(t, q.add(s))
	}
	if batch := q.take(); len(batch) != 1 || batch[0] != small {
		t.Errorf("first entry of %d requests", len(batch))
	}
	if batch := q.take(); len(batch) != 1 || batch[0] != large {
		t.Errorf("second entry of %d requests: a large one goes by itself", len(batch))
	}
	if gone.claimed.Load() {
		t.Error("what was left out can never be given up")
	}
	if len(q.wake) != 1 || len(q.take()) != 1 || len(q.take()) != 0 {
		t.Error("the last one is not taken")
	}
}

// Many callers at once share entries, and each gets its own result: of those who want the tag to be new, one wins.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	f.waitLevel(catalog.LevelRequests, nodes...)
	leader := f.leader(nodes...)
	const tags, rivals = 20, 12
	before := leader.cluster.Status().LastIndex
	var mutex sync.Mutex // guards won
	won := map[string]catalog.LogIndex{}
	var all sync.WaitGroup
	for i := range tags * rivals {
		all.Go(func() {
			tag := fmt.Sprintf("t%d", i%tags)
			command := push(tag)
			command.Tags[0].ExpectAbsent = true
			index, err := nodes[i%len(nodes)].cluster.Apply(t.Context(), command)
			mutex.Lock()
			defer mutex.Unlock()
			switch errdef.ReasonOf(err) {
			case "":
				if won[tag] != 0 {
					t.Errorf("two have made %s", tag)
				}
				won[tag] = index
			case errdef.TagConflict:
			default:
				t.Errorf("%s: %v", tag, err)
			}
		})
	}
	all.Wait()
	if entries := leader.cluster.Status().LastIndex - before; entries >= tags*rivals/2 {
		t.Errorf("%d commands took %d entries", tags*rivals, entries)
	}
	snapshot, err := leader.catalog.Wait(t.Context(), leader.cluster.Status().LastIndex)
	must(t, err)
	for tag, index := range won {
		if made, _ := snapshot.Tag("default", "team/app", push(tag).Tags[0].Name); made.Revision != index {
			t.Errorf("%s was made by entry %d, its maker was told %d", tag, made.Revision, index)
		}
	}
	if len(won) != tags {
		t.Errorf("%d of %d tags were made", len(won), tags)
	}
	f.sameDigest(nodes...)
}

// What a caller gave up before it was packed is certainly not applied; what was packed before is of unknown outcome. A
// queue that is full says so at once.
func TestGiveUp(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	n := f.prepare(1, 1)[0]
	f.start(n)
	f.waitLevel(catalog.LevelRequests, n)
	for range entriesInFlight {
		n.cluster.writes.slots <- struct{}{} // nothing is packed
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := n.cluster.Apply(ctx, push("given-up")); errdef.ReasonOf(err) != errdef.Deadline {
		t.Errorf("got %v, want %s", err, errdef.Deadline)
	}
	for n.cluster.writes.add(submit(ctx, 10)) == nil { // their callers have gone, too
	}
	if _, err := n.cluster.Apply(t.Context(), push("one-too-many")); errdef.ReasonOf(err) != errdef.Overloaded {
		t.Errorf("got %v, want %s", err, errdef.Overloaded)
	}
	for range entriesInFlight {
		<-n.cluster.writes.slots
	}
	n.write("after")
	for _, tag := range []string{"given-up", "one-too-many"} {
		if _, ok := n.catalog.Snapshot().Tag("default", "team/app", push(tag).Tags[0].Name); ok {
			t.Errorf("%s was applied", tag)
		}
	}
	packed := submit(ctx, 10)
	packed.claim()
	if _, err := packed.giveUp(ctx.Err(), errdef.Deadline); errdef.ReasonOf(err) != errdef.OutcomeUnknown {
		t.Errorf("got %v, want %s", err, errdef.OutcomeUnknown)
	}
}

// BenchmarkApply measures commits a second of three nodes in one process, with real fsyncs, through all nodes.
func BenchmarkApply(b *testing.B) {
	for _, clients := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			f := newFleet(b)
			nodes := f.prepare(3, 3)
			f.start(nodes...)
			f.waitLevel(catalog.LevelRequests, nodes...)
			work := make(chan int)
			var all sync.WaitGroup
			leader := f.leader(nodes...)
			before := leader.cluster.Status().LastIndex
			b.ResetTimer()
			for client := range clients {
				all.Go(func() {
					n := nodes[client%len(nodes)]
					for i := range work {
						if _, err := n.cluster.Apply(b.Context(), push(fmt.Sprintf("tag-%d", i))); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for i := range b.N {
				work <- i
			}
			close(work)
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			entries := leader.cluster.Status().LastIndex - before
			b.ReportMetric(float64(b.N)/float64(entries), "commands/entry")
			b.ReportMetric(b.Elapsed().Seconds()*1000/float64(entries), "ms/entry")
		})
	}
}
