package node

import "sync"

// tally counts the requests to each upstream for status, which cannot read them back from a metric.
type tally struct {
	mutex  sync.Mutex // guards counts
	counts map[string]uint64
}

func newTally() *tally { return &tally{counts: map[string]uint64{}} }

func (t *tally) add(name string) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.counts[name]++
}

func (t *tally) of(name string) uint64 {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return t.counts[name]
}
