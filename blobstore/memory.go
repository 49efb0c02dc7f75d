package blobstore

import (
	"container/list"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
)

// memory is the memory tier: small verified content, bounded by bytes. It evicts by recency with second chances (CLOCK): a
// hit only marks the entry, and moves nothing, so readers share a read lock; the oldest entry goes, unless it was hit
// since it last was the oldest: then it becomes the newest.
type memory struct {
	limit int64 // bytes

	// mu guards the fields below. A hit takes it for reading only.
	mu      sync.RWMutex
	entries map[digest.Digest]*entry
	order   list.List // of *entry, newest first
	bytes   int64
}

// entry is content in memory. Its data are never changed: readers share them.
type entry struct {
	digest digest.Digest
	data   []byte
	hit    atomic.Bool   // since it was last the oldest
	pins   int           // not evicted while above zero; guarded by the tier's mu
	place  *list.Element // in the tier's order; guarded by the tier's mu
}

func newMemory(limit int64) *memory {
	return &memory{limit: limit, entries: map[digest.Digest]*entry{}}
}

func (m *memory) get(dgst digest.Digest) ([]byte, bool) {
	m.mu.RLock()
	found, ok := m.entries[dgst]
	m.mu.RUnlock()
	if !ok {
		return nil, false
	}
	if !found.hit.Load() { // no store where none is needed: readers on other cores keep their copy of the cache line
		found.hit.Store(true)
	}
	return found.data, true
}

// put adds content if there is room for it, or can be made.
func (m *memory) put(dgst digest.Digest, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.entries[dgst]; !ok && m.makeRoom(int64(len(data))) {
		m.insert(dgst, data)
	}
}

// pin adds content, even over the limit, and keeps it until the entry was unpinned as often.
func (m *memory) pin(dgst digest.Digest, data []byte) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	pinned, ok := m.entries[dgst]
	if !ok {
		m.makeRoom(int64(len(data)))
		pinned = m.insert(dgst, data)
	}
	pinned.pins++
	return pinned
}

func (m *memory) unpin(pinned *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	pinned.pins--
	m.makeRoom(0)
}

func (m *memory) remove(dgst digest.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if found, ok := m.entries[dgst]; ok {
		m.drop(found)
	}
}

func (m *memory) size() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.bytes
}

// insert adds an entry. The caller holds mu, and has made room first so that the newest entry is not the one to go.
func (m *memory) insert(dgst digest.Digest, data []byte) *entry {
	added := &entry{digest: dgst, data: data}
	added.place = m.order.PushFront(added)
	m.entries[dgst] = added
	m.bytes += int64(len(data))
	return added
}

// makeRoom evicts until that many more bytes fit, and tells whether they do. The caller holds mu.
func (m *memory) makeRoom(incoming int64) bool {
	if incoming > m.limit {
		return false
	}
	// Two rounds see every entry without its mark; what is left then is pinned.
	for steps := 2 * len(m.entries); steps > 0 && m.bytes+incoming > m.limit; steps-- {
		oldest := m.order.Back().Value.(*entry)
		if oldest.hit.Swap(false) || oldest.pins > 0 {
			m.order.MoveToFront(oldest.place)
		} else {
			m.drop(oldest)
		}
	}
	return m.bytes+incoming <= m.limit
}

// drop removes an entry. The caller holds mu.
func (m *memory) drop(dropped *entry) {
	m.order.Remove(dropped.place)
	delete(m.entries, dropped.digest)
	m.bytes -= int64(len(dropped.data))
}
