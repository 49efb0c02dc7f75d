package blobstore

import (
	"container/list"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
)

// memory is the memory tier: small verified content, bounded by bytes. It evicts as SIEVE does (Zhang et al., NSDI 2024):
// a hit marks the entry as visited and moves nothing, so that readers share a read lock; a hand goes from old to new,
// spares each visited entry once, and evicts the first that was not visited since it last came by.
type memory struct {
	limit int64 // bytes

	// mu guards the fields below. A hit takes it for reading only.
	mu      sync.RWMutex
	entries map[digest.Digest]*entry
	order   list.List     // of *entry, newest first
	hand    *list.Element // the next candidate for eviction; nil for the oldest
	bytes   int64
}

// entry is content in memory. Its data are never changed: readers share them.
type entry struct {
	digest  digest.Digest
	data    []byte
	visited atomic.Bool
	pins    int // not evicted while above zero; guarded by the tier's mu
	place   *list.Element
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
	if !found.visited.Load() { // a plain load keeps the cache line shared between readers
		found.visited.Store(true)
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
	// Two rounds see every entry unmarked; what is left then is pinned.
	for steps := 2 * len(m.entries); steps > 0 && m.bytes+incoming > m.limit; steps-- {
		if m.hand == nil {
			m.hand = m.order.Back()
		}
		candidate := m.hand.Value.(*entry)
		switch {
		case candidate.pins > 0:
			m.hand = m.hand.Prev()
		case candidate.visited.Load():
			candidate.visited.Store(false)
			m.hand = m.hand.Prev()
		default:
			m.drop(candidate)
		}
	}
	return m.bytes+incoming <= m.limit
}

// drop removes an entry; the hand, if it pointed there, goes on to the next newer one. The caller holds mu.
func (m *memory) drop(dropped *entry) {
	if m.hand == dropped.place {
		m.hand = dropped.place.Prev()
	}
	m.order.Remove(dropped.place)
	delete(m.entries, dropped.digest)
	m.bytes -= int64(len(dropped.data))
}
