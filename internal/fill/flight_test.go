package fill

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
)

func TestOneFlightPerKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := newFlights[string, int]()
		defer group.close()
		runs, joins := 0, 0
		var mu sync.Mutex // guards joins
		var callers sync.WaitGroup
		for range 100 {
			callers.Go(func() {
				value, joined, err := group.join(t.Context(), "key", func(context.Context, pilot[int]) (int, error) {
					runs++
					<-time.After(time.Second)
					return 7, nil
				})
				mu.Lock()
				defer mu.Unlock()
				if joined {
					joins++
				}
				if value != 7 || err != nil {
					t.Errorf("got %d, %v", value, err)
				}
			})
		}
		callers.Wait()
		if runs != 1 || joins != 99 {
			t.Errorf("%d runs, %d joined", runs, joins)
		}
	})
}

func TestCallersThatLeaveDoNotStopAFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := newFlights[string, int]()
		defer group.close()
		landed := false
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := group.join(ctx, "key", func(life context.Context, _ pilot[int]) (int, error) {
			select {
			case <-life.Done():
			case <-time.After(time.Minute):
				landed = true
			}
			return 1, nil
		})
		if errdef.ReasonOf(err) != errdef.Deadline {
			t.Errorf("the caller got %v", err)
		}
		value, joined, err := group.join(t.Context(), "key", nil)
		if value != 1 || !joined || err != nil || !landed {
			t.Errorf("the flight was stopped: %d, %v, %v", value, joined, err)
		}
	})
}

// A flight that has announced stays joinable until it returns, and only then a new one begins.
func TestAnnouncedFlightStaysJoinable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := newFlights[string, int]()
		defer group.close()
		publish := make(chan struct{})
		_, _, err := group.join(t.Context(), "key", func(_ context.Context, pilot pilot[int]) (int, error) {
			pilot.announce(1)
			<-publish
			return 0, errors.New("nobody hears this")
		})
		if err != nil {
			t.Fatal(err)
		}
		if value, joined, err := group.join(t.Context(), "key", nil); value != 1 || !joined || err != nil {
			t.Errorf("got %d, %v, %v", value, joined, err)
		}
		close(publish)
		synctest.Wait()
		value, joined, err := group.join(t.Context(), "key", func(context.Context, pilot[int]) (int, error) { return 2, nil })
		if value != 2 || joined || err != nil {
			t.Errorf("got %d, %v, %v", value, joined, err)
		}
	})
}

// A flight that has forgotten itself goes on, beside the next one, and does not end that one's place.
func TestForgottenFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := newFlights[string, int]()
		defer group.close()
		first, second := make(chan struct{}), make(chan struct{})
		go func() {
			value, _, err := group.join(t.Context(), "key", func(_ context.Context, pilot pilot[int]) (int, error) {
				pilot.forget()
				<-first
				return 1, nil
			})
			if value != 1 || err != nil {
				t.Errorf("got %d, %v", value, err)
			}
		}()
		synctest.Wait()
		go func() {
			_, _, _ = group.join(t.Context(), "key", func(context.Context, pilot[int]) (int, error) { <-second; return 2, nil })
		}()
		synctest.Wait()
		close(first)
		synctest.Wait()
		time.AfterFunc(time.Second, func() { close(second) })
		if value, joined, err := group.join(t.Context(), "key", nil); value != 2 || !joined || err != nil {
			t.Errorf("got %d, %v, %v", value, joined, err)
		}
	})
}

func TestCloseStopsFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := newFlights[string, int]()
		done := make(chan error)
		go func() {
			_, _, err := group.join(t.Context(), "key", func(life context.Context, _ pilot[int]) (int, error) {
				<-life.Done()
				return 0, life.Err()
			})
			done <- err
		}()
		synctest.Wait()
		group.close()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller got %v", err)
		}
		if _, _, err := group.join(t.Context(), "key", nil); errdef.ReasonOf(err) != errdef.Unavailable {
			t.Errorf("a new flight got %v", err)
		}
	})
}
