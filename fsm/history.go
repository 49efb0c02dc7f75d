package fsm

import (
	"crypto/sha256"
	"sort"
	"sync"

	"github.com/ocistern/ocistern/fsm/catalog"
)

// historyEntries is how many entries back the running hash is known: about half a second at the highest rate.
const historyEntries = 4096

// history keeps the running hash at the last entries, so that nodes that are not at the same one can compare.
type history struct {
	mutex  sync.Mutex // guards what follows
	points []point    // a ring of at most historyEntries, in ascending order from oldest on
	oldest int
}

type point struct {
	index catalog.LogIndex
	hash  [sha256.Size]byte
}

// begin forgets all and starts at a point: that of a snapshot.
func (h *history) begin(index catalog.LogIndex, hash [sha256.Size]byte) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.points, h.oldest = append(h.points[:0], point{index, hash}), 0
}

// forget forgets all.
func (h *history) forget() {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.points, h.oldest = h.points[:0], 0
}

// add appends entries in ascending order. Those of one log entry are one point.
func (h *history) add(entries []catalog.Entry) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	for i, entry := range entries {
		if i > 0 && entry.Index == entries[i-1].Index {
			continue
		}
		next := point{entry.Index, entry.Hash}
		if len(h.points) < historyEntries {
			h.points = append(h.points, next)
			continue
		}
		h.points[h.oldest] = next
		h.oldest = (h.oldest + 1) % len(h.points)
	}
}

// at returns the hash over all commands up to index, which must not be ahead of what was added. False is for one that is
// forgotten.
func (h *history) at(index catalog.LogIndex) ([sha256.Size]byte, bool) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	nth := func(i int) point { return h.points[(h.oldest+i)%len(h.points)] }
	after := sort.Search(len(h.points), func(i int) bool { return nth(i).index > index })
	if after == 0 {
		return [sha256.Size]byte{}, false
	}
	return nth(after - 1).hash, true
}

// HashAt returns the running hash over all commands up to index, which the catalog must have reached. False says that it
// is not known any more: only the last entries are kept, and none from before a restored snapshot. It is safe for
// concurrent use.
func (f *FSM) HashAt(index catalog.LogIndex) ([sha256.Size]byte, bool) { return f.history.at(index) }
