package blobstore

import (
	"fmt"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

func named(i int) digest.Digest { return digest.FromString(fmt.Sprint(i)) }

func (m *memory) holds(i int) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, ok := m.entries[named(i)]
	return ok
}

func TestMemoryEvictsWhatIsNotRead(t *testing.T) {
	m := newMemory(10)
	for i := range 10 {
		m.put(named(i), []byte{byte(i)})
	}
	for _, i := range []int{0, 3, 9} {
		if data, ok := m.get(named(i)); !ok || data[0] != byte(i) {
			t.Fatalf("%d: %v, %v", i, data, ok)
		}
	}
	for i := 10; i < 17; i++ {
		m.put(named(i), []byte{byte(i)})
	}
	for i := range 17 {
		if want := i == 0 || i == 3 || i >= 9; m.holds(i) != want {
			t.Errorf("holds %d: %v, want %v", i, !want, want)
		}
	}
	// Once more: what was read long ago goes in its turn, what is read still stays.
	for i := 17; i < 40; i++ {
		m.get(named(3))
		m.put(named(i), []byte{byte(i)})
	}
	if m.holds(0) || m.holds(9) || !m.holds(3) || m.size() != 10 {
		t.Errorf("holds 0: %v, 9: %v, 3: %v, %d bytes", m.holds(0), m.holds(9), m.holds(3), m.size())
	}
}

func TestMemoryKeepsWhatIsPinned(t *testing.T) {
	m := newMemory(3)
	pins := []*entry{m.pin(named(0), []byte("ab")), m.pin(named(1), []byte("cd")), m.pin(named(0), []byte("ab"))}
	m.put(named(2), []byte("x"))
	m.put(named(3), []byte("far too long"))
	if !m.holds(0) || !m.holds(1) || m.holds(2) || m.holds(3) || m.size() != 4 {
		t.Errorf("holds %v %v %v %v, %d bytes", m.holds(0), m.holds(1), m.holds(2), m.holds(3), m.size())
	}
	m.unpin(pins[0])
	if !m.holds(0) {
		t.Error("content that is pinned twice went with the first unpin")
	}
	m.unpin(pins[1])
	m.unpin(pins[2])
	if m.size() > 3 {
		t.Errorf("%d bytes are left, of at most 3", m.size())
	}
	m.remove(named(0))
	m.remove(named(1))
	m.remove(named(7))
	m.put(named(4), []byte("abc"))
	if !m.holds(4) || m.size() != 3 {
		t.Errorf("%d bytes are left", m.size())
	}
}

func TestMemoryTurnedOff(t *testing.T) {
	m := newMemory(0)
	m.put(named(0), []byte("x"))
	pinned := m.pin(named(1), []byte("y"))
	if _, ok := m.get(named(1)); !ok || m.holds(0) {
		t.Error("only pinned content may be in memory")
	}
	m.unpin(pinned)
	if m.size() != 0 {
		t.Errorf("%d bytes are left", m.size())
	}
}

// The bound and the bookkeeping hold under any mix of concurrent calls.
func TestMemoryConcurrently(t *testing.T) {
	m := newMemory(100)
	var callers sync.WaitGroup
	for g := range 8 {
		callers.Go(func() {
			for i := range 2000 {
				k := (i*7 + g) % 50
				switch i % 5 {
				case 0:
					m.put(named(k), make([]byte, k))
				case 1:
					m.unpin(m.pin(named(k), make([]byte, k)))
				case 2:
					m.remove(named(k))
				default:
					if data, ok := m.get(named(k)); ok && len(data) != k {
						t.Errorf("%d has %d bytes", k, len(data))
					}
				}
			}
		})
	}
	callers.Wait()
	var total int64
	for _, e := range m.entries {
		total += int64(len(e.data))
	}
	if total != m.size() || total > 100 || m.order.Len() != len(m.entries) {
		t.Errorf("%d bytes in %d entries, counted %d in %d", total, len(m.entries), m.size(), m.order.Len())
	}
}
