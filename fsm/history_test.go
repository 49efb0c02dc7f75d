package fsm

import (
	"testing"

	"github.com/ocistern/ocistern/fsm/catalog"
)

func TestHistory(t *testing.T) {
	h := &history{}
	if _, known := h.at(1); known {
		t.Error("an empty history knows a hash")
	}
	hashOf := func(index int) [32]byte { return [32]byte{byte(index), byte(index >> 8)} }
	want := func(index, as int) {
		t.Helper()
		got, known := h.at(catalog.LogIndex(index))
		if known != (as > 0) || known && got != hashOf(as) {
			t.Errorf("at %d: %x, %v, want that of %d", index, got[:2], known, as)
		}
	}
	const last = 2*historyEntries + 10
	for i := 2; i <= last; i += 2 { // the others carry no command, and no hash of their own
		h.add([]catalog.Entry{{Index: catalog.LogIndex(i), Hash: hashOf(i)}})
	}
	want(last, last)
	want(last-1, last-2)
	want(12, 12)
	want(11, 0)
	h.begin(100, hashOf(100))
	want(99, 0)
	want(100, 100)
	want(150, 100)
	h.add([]catalog.Entry{{Index: 151, Hash: hashOf(151)}, {Index: 151, Hash: hashOf(151)}, {Index: 152, Hash: hashOf(152)}})
	want(150, 100)
	want(151, 151)
	want(152, 152)
}
