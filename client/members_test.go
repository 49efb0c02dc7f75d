package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/internal/testnode"
)

// An order goes to the next node when the one before could not be reached, and not when it took it and died: it may have been
// carried out.
func TestOrdersAreGivenOnce(t *testing.T) {
	for range 4 { // each client starts at a random node
		f := newFixture(t, 2)
		f.nodes[0].Stop()
		c, _ := f.open(t)
		if id, err := c.Leave(within(t, time.Minute), "n9"); err != nil || id != "n9" {
			t.Fatalf("with one node down: %q, %v", id, err)
		}
	}
	f := newFixture(t, 2)
	f.each(func(node *testnode.Node) {
		node.Intercept(func(ctx context.Context, _ testnode.Call) error {
			go node.Stop()
			<-ctx.Done()
			return ctx.Err()
		})
	})
	c, _ := f.open(t)
	if _, err := c.Leave(within(t, time.Minute), "n9"); !errors.Is(err, client.ErrOutcomeUnknown) {
		t.Errorf("the node that took it died: %v", err)
	}
	if got := f.calls("Operate leave"); got != 1 {
		t.Errorf("it was given %d times", got)
	}
}
