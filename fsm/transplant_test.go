package fsm

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

func spoolFile(t testing.TB) *os.File {
	t.Helper()
	spool, err := os.Create(filepath.Join(t.TempDir(), "spool"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = spool.Close() })
	return spool
}

// transplanted is the golden catalog, as cluster-9 has it at index 4711.
func transplanted(t testing.TB, keep func(catalog.NodeID) bool) ([]byte, int64) {
	t.Helper()
	moved, err := NewTransplant(snapshotBytes(t, goldenCatalog(t).Snapshot()))
	if err != nil {
		t.Fatal(err)
	}
	if err := moved.Spool(spoolFile(t), keep); err != nil {
		t.Fatal(err)
	}
	size, err := moved.Size("cluster-9", 4711)
	if err != nil {
		t.Fatal(err)
	}
	written, err := io.ReadAll(moved.Reader("cluster-9", func() (catalog.LogIndex, error) { return 4711, nil }))
	if err != nil {
		t.Fatal(err)
	}
	return written, size
}

// A transplanted snapshot is a snapshot like any other, with the records of the old one and the name and index of the new
// place. Its hash is neither that of the old snapshot nor the same at another index: two catalogs of one hash are equal.
func TestTransplant(t *testing.T) {
	original := goldenCatalog(t).Snapshot()
	written, size := transplanted(t, func(catalog.NodeID) bool { return true })
	cat := catalog.New()
	if err := restore(cat, bytes.NewReader(written)); err != nil {
		t.Fatal(err)
	}
	got := cat.Snapshot()
	if got.Index() != 4711 || got.ClusterID() != "cluster-9" || got.Stats() != original.Stats() ||
		int64(len(written)) != size || got.CommandHash() == original.CommandHash() {
		t.Errorf("index %d, cluster %s, %+v, %d of %d bytes", got.Index(), got.ClusterID(), got.Stats(), len(written), size)
	}
	info, err := InspectSnapshot(bytes.NewReader(written))
	if err != nil || info.Records != original.Stats() || !reflect.DeepEqual(info.Header, got.Header()) || info.Bytes != size ||
		info.Version != 1 {
		t.Errorf("inspected as %+v, %v", info, err)
	}
}

// Holders that are no members any more are dropped; what nobody holds and nobody links to goes with them.
func TestTransplantDropsHolders(t *testing.T) {
	written, _ := transplanted(t, func(catalog.NodeID) bool { return false })
	cat := catalog.New()
	if err := restore(cat, bytes.NewReader(written)); err != nil {
		t.Fatal(err)
	}
	held := 0
	for blob := range goldenCatalog(t).Snapshot().Blobs() {
		held += len(blob.Holders)
	}
	if held == 0 {
		t.Fatal("the golden catalog has no holders: this test shows nothing")
	}
	for blob := range cat.Snapshot().Blobs() {
		if len(blob.Holders) > 0 {
			t.Errorf("%s is held by %v", blob.Digest, blob.Holders)
		}
	}
}

// A snapshot is found damaged before any of it is used, wherever the damage is, and so is a spool that changed. Whatever
// cannot be restored cannot be transplanted either: raft ends a process that fails to restore.
func TestTransplantOfDamaged(t *testing.T) {
	whole := snapshotBytes(t, goldenCatalog(t).Snapshot()).Bytes()
	scratch := spoolFile(t)
	for at := range whole {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 0x10
		if err := spoolOnly(scratch, damaged); err == nil {
			t.Errorf("byte %d flipped: no error", at)
		}
		if err := spoolOnly(scratch, whole[:at]); !errors.Is(err, errdef.ErrSnapshotInvalid) {
			t.Errorf("cut at %d: %v", at, err)
		}
		if _, err := InspectSnapshot(bytes.NewReader(damaged)); err == nil {
			t.Errorf("byte %d flipped: inspected as whole", at)
		}
	}
	moved, err := NewTransplant(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	spool := spoolFile(t)
	if err := moved.Spool(spool, func(catalog.NodeID) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if _, err := spool.WriteAt([]byte{0xff}, 20); err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(moved.Reader("c", func() (catalog.LogIndex, error) { return 1, nil }))
	if !errors.Is(err, errdef.ErrStorageFailed) {
		t.Errorf("changed on the disk: %v", err)
	}
}

func spoolOnly(spool *os.File, encoded []byte) error {
	moved, err := NewTransplant(bytes.NewReader(encoded))
	if err != nil {
		return err
	}
	return moved.Spool(spool, func(catalog.NodeID) bool { return true })
}

// A cluster keeps its feature level when a snapshot comes, and forgets all requests: what became of them was undone. Neither
// is brought by the snapshot.
func TestTransplantKeepsTheLevel(t *testing.T) {
	raised := goldenCatalog(t)
	raise(t, raised)
	former := goldenCatalog(t)
	raise(t, former)
	recovered(t, former)
	for _, c := range []struct {
		name string
		from *catalog.Snapshot
		into catalog.FeatureLevel
		want errdef.Reason
		// formers of the cluster: neither more nor less, whatever the snapshot says.
		formers []string
	}{
		{"1 into 1", goldenCatalog(t).Snapshot(), 1, "", nil}, {"1 into 2", goldenCatalog(t).Snapshot(), 2, "", nil},
		{"2 into 2", raised.Snapshot(), 2, "", nil}, {"2 into 1", raised.Snapshot(), 1, errdef.VersionTooOld, nil},
		{"2 into 2 that was recovered", raised.Snapshot(), 2, "", []string{"ours"}},
		{"recovered into recovered", former.Snapshot(), 2, "", []string{"ours"}},
		{"recovered into 2", former.Snapshot(), 2, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			moved, err := NewTransplant(snapshotBytes(t, c.from))
			if err != nil {
				t.Fatal(err)
			}
			if err := moved.Spool(spoolFile(t), func(catalog.NodeID) bool { return true }); err != nil {
				t.Fatal(err)
			}
			err = moved.Into(catalog.Header{Level: c.into, Formers: c.formers})
			if errdef.ReasonOf(err) != c.want {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if err != nil {
				return
			}
			cat := catalog.New()
			at := func() (catalog.LogIndex, error) { return 50, nil }
			if err := restore(cat, moved.Reader("c9", at)); err != nil {
				t.Fatal(err)
			}
			if got := cat.Snapshot().FeatureLevel(); got != c.into {
				t.Errorf("the cluster is at level %d now, was at %d", got, c.into)
			}
			if got := cat.Snapshot().Formers(); !slices.Equal(got, c.formers) {
				t.Errorf("the cluster was recovered from %v, the snapshot makes that %v", c.formers, got)
			}
			if c.into < catalog.LevelRequests {
				return
			}
			known := catalog.Request{ID: catalog.RequestID{1}, Since: 49}
			result := cat.Apply(catalog.Entry{Index: 51, Command: catalog.AddHolder{Node: "n"}, Request: known})[0]
			if errdef.ReasonOf(result.Err) != errdef.RequestExpired {
				t.Errorf("a request from before: %+v", result)
			}
		})
	}
}

// A recovered catalog remembers what it was, however often, where the level allows it and no more than once.
func TestReplantRemembers(t *testing.T) {
	all := func(catalog.NodeID) bool { return true }
	old := goldenCatalog(t)
	if err := Replant(old, "new", 20, all); err != nil || len(old.Snapshot().Formers()) != 0 {
		t.Errorf("at level 1: %v, %v", old.Snapshot().Formers(), err)
	}
	cat := goldenCatalog(t)
	raise(t, cat)
	recovered(t, cat)
	was := cat.Snapshot().ClusterID()
	for _, id := range []string{"new", "new", "newer"} { // the first is repeated, as after a crash
		if err := Replant(cat, id, 20, all); err != nil {
			t.Fatal(err)
		}
	}
	if got := cat.Snapshot().Formers(); !slices.Equal(got, []string{"01A", "01B", "01C", was, "new"}) {
		t.Errorf("cluster %s was %v", cat.Snapshot().ClusterID(), got)
	}
}
