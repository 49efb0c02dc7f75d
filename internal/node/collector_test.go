package node

import (
	"context"
	"runtime/debug"
	"testing"
	"testing/synctest"
)

func TestCollectorPercent(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 800, 1 << 20: 800, 16 << 20: 400, 48 << 20: 133, 64 << 20: 100, 10 << 30: 100,
	} {
		if got := collectorPercentFor(live); got != want {
			t.Errorf("%d bytes live: %d percent, want %d", live, got, want)
		}
	}
}

// A node with a small heap collects less often, and leaves the process as it was.
func TestPaceCollector(t *testing.T) {
	now := func() int {
		percent := debug.SetGCPercent(collectorPercent)
		debug.SetGCPercent(percent)
		return percent
	}
	t.Setenv("GOGC", "")
	before := now()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		go paceCollector(ctx)
		synctest.Wait()
		if got := now(); got <= collectorPercent {
			t.Errorf("%d percent while it runs", got)
		}
		cancel()
		synctest.Wait()
	})
	if got := now(); got != collectorPercent {
		t.Errorf("%d percent afterwards, %d before", got, before)
	}
	t.Setenv("GOGC", "300")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	paceCollector(ctx) // must leave it alone
	if got := now(); got != collectorPercent {
		t.Errorf("%d percent although GOGC is set", got)
	}
}
