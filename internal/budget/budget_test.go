package budget

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
)

// shared is what several nodes know in common.
type shared struct {
	mutex sync.Mutex
	until time.Time
	told  int
}

func (s *shared) Until(string) time.Time {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.until
}

func (s *shared) Tell(_ string, until time.Time) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.until, s.told = until, s.told+1
}

func newBudget(limits Limits, nodes int, pauses Pauses) *Budget {
	return New(Config{Upstream: "up.test", Limits: limits, Nodes: func() int { return nodes }, Pauses: pauses})
}

func within(t *testing.T, wait time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	t.Cleanup(cancel)
	return ctx
}

// pass lets time pass in the bubble.
func pass(t *testing.T, wait time.Duration) {
	t.Helper()
	if err := sleep(t.Context(), wait); err != nil {
		t.Error(err)
	}
}

func TestShare(t *testing.T) {
	for _, c := range []struct {
		limits Limits
		nodes  int
		want   Limits
	}{
		{Limits{32, 90, 30}, 3, Limits{10, 30, 10}},
		{Limits{32, 90, 30}, 1, Limits{32, 90, 30}},
		{Limits{2, 1, 0}, 3, Limits{1, 1.0 / 3, 1}},
		{Limits{4, 0, 0}, 0, Limits{4, 0, 1}},
	} {
		if got := c.limits.Share(c.nodes); got != c.want {
			t.Errorf("%+v shared by %d nodes is %+v, want %+v", c.limits, c.nodes, got, c.want)
		}
	}
}

func TestConcurrencyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(Limits{Concurrency: 9}, 3, &shared{})
		var inFlight, most atomic.Int32
		var callers sync.WaitGroup
		for range 100 {
			callers.Go(func() {
				ticket, err := b.Acquire(t.Context(), false)
				if err != nil {
					t.Error(err)
					return
				}
				most.Store(max(most.Load(), inFlight.Add(1)))
				pass(t, time.Second)
				inFlight.Add(-1)
				ticket.Tell(Answered)
				ticket.Return()
				ticket.Return() // counts once
			})
		}
		start := time.Now()
		callers.Wait()
		if most.Load() != 3 || time.Since(start) != 34*time.Second {
			t.Errorf("%d were in flight at once, for %s; want 3 for 34 s", most.Load(), time.Since(start))
		}
	})
}

// TestQueueGoesByDeadline: who has least time is served first, and who cannot be served in time is told at once.
func TestQueueGoesByDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(Limits{Concurrency: 1}, 1, &shared{})
		use := func(ctx context.Context, name string, order *[]string) error {
			ticket, err := b.Acquire(ctx, false)
			if err != nil {
				return err
			}
			*order = append(*order, name)
			pass(t, time.Second)
			ticket.Return()
			return nil
		}
		var order []string
		for range 64 { // so that it is known how long a request takes
			if err := use(t.Context(), "", &order); err != nil {
				t.Fatal(err)
			}
		}
		order = nil
		var callers sync.WaitGroup
		for i, wait := range []time.Duration{time.Minute, 40 * time.Second, 20 * time.Second} {
			callers.Go(func() {
				pass(t, time.Duration(i+1)*time.Millisecond)
				if err := use(within(t, wait), wait.String(), &order); err != nil {
					t.Error(err)
				}
			})
		}
		callers.Go(func() {
			if err := use(t.Context(), "first", &order); err != nil {
				t.Error(err)
			}
		})
		pass(t, 10*time.Millisecond)
		asked := time.Now()
		err := use(within(t, 500*time.Millisecond), "too late", &order)
		if errdef.ReasonOf(err) != errdef.UpstreamThrottled || time.Since(asked) != 0 {
			t.Errorf("after %s: %v", time.Since(asked), err)
		}
		callers.Wait()
		if want := []string{"first", "20s", "40s", "1m0s"}; !slices.Equal(order, want) {
			t.Errorf("served in the order %v, want %v", order, want)
		}
	})
}

func TestRateIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(Limits{Concurrency: 100, PerSecond: 10, Burst: 5}, 1, &shared{})
		start := time.Now()
		for range 25 {
			ticket, err := b.Acquire(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			ticket.Return()
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("25 requests took %s, want 2 s: 5 at once, then 10 a second", took)
		}
		asked := time.Now()
		if _, err := b.Acquire(within(t, 50*time.Millisecond), false); errdef.ReasonOf(err) != errdef.UpstreamThrottled || time.Since(asked) != 0 {
			t.Errorf("after %s: %v", time.Since(asked), err)
		}
	})
}

// TestPauseHoldsForAllNodes: one node is told to wait, and the other does not ask before.
func TestPauseHoldsForAllNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pauses := &shared{}
		told, other := newBudget(Limits{Concurrency: 4}, 2, pauses), newBudget(Limits{Concurrency: 4}, 2, pauses)
		until := time.Now().Add(30 * time.Second)
		for range 10 {
			told.Pause(until) // ten answers at once are one thing to tell
		}
		if pauses.told != 1 {
			t.Errorf("told %d times", pauses.told)
		}
		for name, b := range map[string]*Budget{"told": told, "other": other} {
			asked := time.Now()
			_, err := b.Acquire(within(t, 29*time.Second), false)
			if errdef.ReasonOf(err) != errdef.UpstreamThrottled || time.Since(asked) != 0 {
				t.Errorf("%s, after %s: %v", name, time.Since(asked), err)
			}
			if err := b.Admit(within(t, 29*time.Second)); errdef.ReasonOf(err) != errdef.UpstreamThrottled {
				t.Errorf("%s admits: %v", name, err)
			}
			if err := b.Admit(within(t, 31*time.Second)); err != nil {
				t.Errorf("%s does not admit: %v", name, err)
			}
		}
		ticket, err := other.Acquire(within(t, 31*time.Second), false)
		if err != nil || time.Now().Before(until) {
			t.Errorf("at %s, %s before its end: %v", time.Now(), time.Until(until), err)
		}
		ticket.Return()
	})
}

// TestPauseBeginsWhileOneWaits: who waits for a slot when the pause begins, waits for its end too.
func TestPauseBeginsWhileOneWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(Limits{Concurrency: 1}, 1, &shared{})
		first, err := b.Acquire(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		until := time.Now().Add(time.Minute)
		var waiting sync.WaitGroup
		waiting.Go(func() {
			ticket, err := b.Acquire(t.Context(), false)
			if err != nil || time.Now().Before(until) {
				t.Errorf("%s too early: %v", time.Until(until), err)
				return
			}
			ticket.Return()
		})
		synctest.Wait()
		b.Pause(until)
		first.Return()
		waiting.Wait()
	})
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(Limits{Concurrency: 8}, 1, &shared{})
		request := func(outcome Outcome) error {
			ticket, err := b.Acquire(t.Context(), false)
			if err == nil {
				ticket.Tell(outcome)
				ticket.Return()
			}
			return err
		}
		for range breakerFailures - 1 {
			if err := request(Failed); err != nil {
				t.Fatal(err)
			}
		}
		steps := []struct {
			after   time.Duration
			outcome Outcome
			refused bool
		}{
			{0, GivenUp, false},
			{0, Failed, false}, // the last one
			{0, Answered, true},
			{999 * time.Millisecond, Answered, true},
			{time.Millisecond, Failed, false}, // the probe
			{time.Second, Answered, true},
			{time.Second, GivenUp, false}, // a probe that tells nothing
			{0, Answered, false},
			{0, Failed, false},
			{0, Answered, false},
		}
		for i, step := range steps {
			pass(t, step.after)
			err := request(step.outcome)
			if refused := errdef.ReasonOf(err) == errdef.UpstreamUnavailable; refused != step.refused || !refused && err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
		}
	})
}

// TestOneProbe: while the probe is out, nobody else goes.
func TestOneProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(Limits{Concurrency: 8}, 1, &shared{})
		for range breakerFailures {
			ticket, err := b.Acquire(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			ticket.Tell(Failed)
			ticket.Return()
		}
		pass(t, breakerFirst)
		probe, err := b.Acquire(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		pass(t, time.Hour)
		if _, err := b.Acquire(t.Context(), false); errdef.ReasonOf(err) != errdef.UpstreamUnavailable {
			t.Errorf("beside the probe: %v", err)
		}
		probe.Tell(Answered)
		for range 3 {
			if _, err := b.Acquire(t.Context(), false); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestWaitersLeave: who gives up while waiting leaves nothing behind.
func TestWaitersLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(Limits{Concurrency: 2}, 1, &shared{})
		one, _ := b.Acquire(t.Context(), false)
		two, _ := b.Acquire(t.Context(), false)
		var leaving sync.WaitGroup
		for i := range 50 {
			leaving.Go(func() {
				if _, err := b.Acquire(within(t, time.Duration(i+1)*time.Second), false); errdef.ReasonOf(err) != errdef.Deadline {
					t.Error(err)
				}
			})
		}
		leaving.Wait()
		one.Return()
		two.Return()
		for range 2 {
			if _, err := b.Acquire(within(t, time.Second), false); err != nil {
				t.Error(err)
			}
		}
		if text := fmt.Sprint(b.slots.taken, len(b.slots.waiting)); text != "2 0" {
			t.Errorf("taken and waiting: %s", text)
		}
	})
}

func TestSizeFollowsTheMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := 4
		b := New(Config{Upstream: "up.test", Limits: Limits{Concurrency: 4}, Nodes: func() int { return nodes }, Pauses: &shared{}})
		if _, err := b.Acquire(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Acquire(within(t, time.Second), false); errdef.ReasonOf(err) != errdef.Deadline {
			t.Errorf("a second one of four nodes: %v", err)
		}
		nodes = 2
		if _, err := b.Acquire(within(t, time.Second), false); err != nil {
			t.Errorf("a second one of two nodes: %v", err)
		}
	})
}

// TestContentLeavesRoom: however many bodies are being read, a question about a tag goes out at once.
func TestContentLeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(Limits{Concurrency: 8}, 1, &shared{})
		for range 6 {
			if _, err := b.Acquire(within(t, time.Second), true); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.Acquire(within(t, time.Second), true); errdef.ReasonOf(err) != errdef.Deadline {
			t.Errorf("a seventh body: %v", err)
		}
		asked := time.Now()
		ticket, err := b.Acquire(within(t, time.Second), false)
		if err != nil || time.Since(asked) != 0 {
			t.Errorf("a question, after %s: %v", time.Since(asked), err)
		}
		ticket.Return()
	})
}
