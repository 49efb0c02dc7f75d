package fsm

import (
	"bytes"
	"io"
	"testing"
)

// Restored is told of each snapshot that replaced the catalog, once it has, and of no other.
func TestRestored(t *testing.T) {
	cat, told := goldenCatalog(t), 0
	want := cat.Snapshot()
	machine := New(cat, Options{Restored: func() {
		told++
		if digestOf(t, cat.Snapshot()) != digestOf(t, want) {
			t.Error("told before the catalog was replaced")
		}
	}})
	if err := machine.Restore(io.NopCloser(bytes.NewReader([]byte("no snapshot")))); err == nil || told != 0 {
		t.Errorf("a broken snapshot: error %v, told %d times", err, told)
	}
	if err := machine.Restore(io.NopCloser(snapshotBytes(t, want))); err != nil || told != 1 {
		t.Errorf("error %v, told %d times", err, told)
	}
}
