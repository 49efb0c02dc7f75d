package node

import (
	"context"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"
)

const (
	// garbageFloor is how much garbage may always pile up before it is collected. By itself, Go collects a small heap each
	// time it has doubled: a node with a small catalog that writes at its limit would spend a tenth of its time on that.
	garbageFloor = 64 << 20
	// collectorPercent is Go's default: what a large heap is left with.
	collectorPercent = 100
	collectorPace    = time.Second
	liveHeap         = "/gc/heap/live:bytes"
)

// paceCollector keeps garbageFloor true while the heap grows and shrinks, until ctx ends. It leaves alone who sets GOGC.
func paceCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	defer debug.SetGCPercent(collectorPercent)
	live := []runtimemetrics.Sample{{Name: liveHeap}}
	ticker := time.NewTicker(collectorPace)
	defer ticker.Stop()
	for percent := collectorPercent; ; {
		runtimemetrics.Read(live)
		if next := collectorPercentFor(live[0].Value.Uint64()); next != percent {
			percent = next
			debug.SetGCPercent(percent) // does not collect
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// collectorPercentFor returns how much garbage, in percent of what lives, may pile up.
func collectorPercentFor(live uint64) int {
	return max(collectorPercent, int(garbageFloor*100/max(live, garbageFloor/8)))
}

// openCollector paces the collector for as long as the node runs.
func (n *Node) openCollector() error {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		paceCollector(ctx)
	}()
	n.onClose("collector", func(context.Context) error {
		cancel()
		<-ended
		return nil
	})
	return nil
}
