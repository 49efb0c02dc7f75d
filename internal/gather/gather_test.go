package gather

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
)

// recorder is a Call that waits to be let on, and remembers the batches.
type recorder struct {
	begin   chan error // one is taken by each call, and returned
	batches [][]int    // looked at only while all goroutines wait
}

func (r *recorder) call(ctx context.Context, questions []int) ([]string, error) {
	r.batches = append(r.batches, questions)
	var err error
	select {
	case err = <-r.begin:
	case <-ctx.Done():
		err = ctx.Err()
	}
	answers := make([]string, 0, len(questions))
	for _, q := range questions {
		answers = append(answers, fmt.Sprint(q))
	}
	return answers, err
}

func record(lanes, capacity int) (*recorder, *Gatherer[int, string]) {
	r := &recorder{begin: make(chan error)}
	return r, New(Config[int, string]{
		Call: r.call, Weight: func(q int) int { return q }, Capacity: capacity, Lanes: lanes,
	})
}

// Who comes alone is asked at once; who comes meanwhile shares the next call, as far as it holds; each gets its own answer.
func TestQuestionsAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, g := record(1, 5)
		var asked sync.WaitGroup
		ask := func(q int) {
			asked.Go(func() {
				if a, err := g.Ask(t.Context(), q); err != nil || a != fmt.Sprint(q) {
					t.Errorf("question %d got %q, %v", q, a, err)
				}
			})
			synctest.Wait()
		}
		for _, q := range []int{1, 2, 3, 4, 9, 1} {
			ask(q)
		}
		for range 5 {
			r.begin <- nil
		}
		asked.Wait()
		if got, want := fmt.Sprint(r.batches), "[[1] [2 3] [4] [9] [1]]"; got != want {
			t.Errorf("calls %s, want %s", got, want)
		}
		ask2 := func() { _, _ = g.Ask(t.Context(), 1) }
		asked.Go(ask2) // the lane has ended, and is started again
		r.begin <- nil
		asked.Wait()
	})
}

func TestLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, g := record(2, 100)
		var asked sync.WaitGroup
		for q := range 5 {
			asked.Go(func() { _, _ = g.Ask(t.Context(), q) })
			synctest.Wait()
		}
		if got, want := fmt.Sprint(r.batches), "[[0] [1]]"; got != want {
			t.Errorf("calls under way %s, want %s", got, want)
		}
		close(r.begin)
		asked.Wait()
		if got, want := fmt.Sprint(r.batches), "[[0] [1] [2 3 4]]"; got != want {
			t.Errorf("calls %s, want %s", got, want)
		}
	})
}

// A call that fails fails for all who shared it; the next one is asked anew.
func TestErrorsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, g := record(1, 100)
		broken := errors.New("broken")
		results := make(chan error, 3)
		for q := range 3 {
			go func() {
				_, err := g.Ask(t.Context(), q)
				results <- err
			}()
			synctest.Wait()
		}
		r.begin <- nil
		r.begin <- broken
		for i, want := range []error{nil, broken, broken} {
			if err := <-results; !errors.Is(err, want) {
				t.Errorf("result %d is %v, want %v", i, err, want)
			}
		}
	})
}

// Who leaves does not disturb those who stay; a call that nobody waits for is cancelled, and one that was not sent is not.
func TestLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, g := record(1, 100)
		leaving, leave := context.WithCancel(t.Context())
		results := make(chan error, 4)
		for q, ctx := range []context.Context{leaving, leaving, t.Context()} {
			go func() {
				_, err := g.Ask(ctx, q)
				results <- err
			}()
			synctest.Wait()
		}
		leave()
		for range 2 {
			if err := <-results; !errors.Is(err, context.Canceled) {
				t.Errorf("who left got %v", err)
			}
		}
		synctest.Wait() // the first call, which nobody waits for, has ended by itself
		if got, want := fmt.Sprint(r.batches), "[[0] [1 2]]"; got != want {
			t.Errorf("calls %s, want %s", got, want)
		}
		alone, leaveToo := context.WithCancel(t.Context())
		go func() {
			_, err := g.Ask(alone, 7)
			results <- err
		}()
		synctest.Wait()
		leaveToo()
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("who left before the call got %v", err)
		}
		r.begin <- nil
		if err := <-results; err != nil {
			t.Errorf("who stayed got %v", err)
		}
		synctest.Wait()
		if len(r.batches) != 2 {
			t.Errorf("calls %v: one was made for nobody", r.batches)
		}
	})
}
