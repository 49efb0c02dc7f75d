package client_test

import (
	"context"
	"sync"
	"testing"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/testnode"
)

// Who resolves at the same time shares calls, and gets its own answer; what a node cannot tell at once does not hold up the
// others, and is asked for alone.
func TestResolveIsShared(t *testing.T) {
	f := newFixture(t, 1)
	_, repository := f.open(t)
	node := f.nodes[0]
	begin, slow := make(chan struct{}), f.image.Digest.String()
	first := true
	var mutex sync.Mutex // guards first
	node.Intercept(func(ctx context.Context, call testnode.Call) error {
		mutex.Lock()
		opening := first
		first = false
		mutex.Unlock()
		if opening {
			<-begin
		}
		return nil
	})
	const callers = 50
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			ref := []string{"v1", slow, "absent"}[i%3]
			desc, err := repository.Resolve(t.Context(), ref)
			if ref == "absent" {
				if errdef.ReasonOf(err) != errdef.NotFound {
					t.Errorf("resolve %s: %v", ref, err)
				}
				return
			}
			if err != nil || desc.Digest != f.image.Digest {
				t.Errorf("resolve %s: %v, %v", ref, desc, err)
			}
		})
	}
	close(begin)
	all.Wait()
	if rounds := node.Rounds(); rounds == 0 || rounds > callers/2 {
		t.Errorf("%d callers were served with %d calls", callers, rounds)
	}
}

// A caller that leaves takes nobody with it.
func TestLeavingASharedCall(t *testing.T) {
	f := newFixture(t, 1)
	_, repository := f.open(t)
	begin := make(chan struct{})
	f.nodes[0].Intercept(func(ctx context.Context, _ testnode.Call) error {
		select {
		case <-begin:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	leaving, leave := context.WithCancel(t.Context())
	results := make(chan error, 2)
	go func() {
		_, err := repository.Resolve(leaving, "v1")
		results <- err
	}()
	go func() {
		_, err := repository.Resolve(t.Context(), "v1")
		results <- err
	}()
	leave()
	if err := <-results; errdef.ReasonOf(err) != errdef.Canceled {
		t.Errorf("who left got %v", err)
	}
	close(begin)
	if err := <-results; err != nil {
		t.Errorf("who stayed got %v", err)
	}
}

// A node from before ResolveKnown is asked for each name.
func TestOlderNodesAreAskedForEachName(t *testing.T) {
	f := newFixture(t, 1)
	f.nodes[0].Older()
	_, repository := f.open(t)
	if desc, err := repository.Resolve(t.Context(), "v1"); err != nil || desc.Digest != f.image.Digest {
		t.Errorf("got %v, %v", desc, err)
	}
}
