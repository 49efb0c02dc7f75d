package catalog_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/fsm/catalog/catalogtest"
	"github.com/ocistern/ocistern/internal/errdef"
)

// TestHeldSnapshots holds snapshots of many indexes while the writer goes on, and reads them meanwhile: none may
// change.
func TestHeldSnapshots(t *testing.T) {
	cat := catalog.New()
	commands := catalogtest.NewCommands(3)
	var readers sync.WaitGroup
	written := make(chan struct{})
	for index := catalog.LogIndex(1); index <= 400; index++ {
		cat.Apply(catalog.Entry{Index: index, Command: commands.Next()})
		if index%40 != 0 {
			continue
		}
		held, want := cat.Snapshot(), digestOf(cat.Snapshot())
		readers.Go(func() {
			checkHeld(t, held, want)
			<-written
			checkHeld(t, held, want)
		})
	}
	close(written)
	readers.Wait()
}

func checkHeld(t *testing.T, held *catalog.Snapshot, want digest.Digest) {
	if got := digestOf(held); got != want {
		t.Errorf("snapshot of index %d changed from %s to %s", held.Index(), want, got)
	}
	for record := range held.Records() {
		if record.Tag != nil {
			held.Tag(record.Tenant, record.Repository, record.Tag.Name)
			held.Referrers(record.Tenant, record.Repository, record.Tag.Descriptor.Digest)
		}
	}
}

// TestOneSnapshotPerBatch shows that no reader can see a batch half applied.
func TestOneSnapshotPerBatch(t *testing.T) {
	cat := catalog.New()
	before := cat.Snapshot()
	results := cat.Apply(
		catalog.Entry{Index: 1, Command: catalog.SetCluster{ClusterID: "c1"}},
		catalog.Entry{Index: 2},
		catalog.Entry{Index: 3, Command: catalog.SetCluster{ClusterID: "c2"}, Hash: [32]byte{1}},
	)
	if results[0].Err != nil || results[1].Err != nil || errdef.ReasonOf(results[2].Err) != errdef.ClusterMismatch {
		t.Errorf("results %v", results)
	}
	after := cat.Snapshot()
	if before.Index() != 0 || after.Index() != 3 || after.ClusterID() != "c1" || after.CommandHash() != [32]byte{1} {
		t.Errorf("index %d, then %d of cluster %q", before.Index(), after.Index(), after.ClusterID())
	}
	cat.Apply()
	if cat.Snapshot() != after {
		t.Error("nothing happened, and yet a snapshot was published")
	}
	cat.Apply(catalog.Entry{Index: 5})
	if got := cat.Snapshot().Index(); got != 5 {
		t.Errorf("index %d after an entry without a command", got)
	}
}

// TestFailedRestore shows that a snapshot with an error in it leaves the catalog alone.
func TestFailedRestore(t *testing.T) {
	cat := catalog.New()
	cat.Apply(catalog.Entry{Index: 1, Command: catalog.SetCluster{ClusterID: "c1"}})
	before := cat.Snapshot()
	broken := errdef.New(errdef.SnapshotInvalid, "broken")
	tag := catalog.Record{Tenant: "default", Repository: "app", Tag: &catalog.Tag{Name: "v1"}}
	for name, readErr := range map[string]error{"reading fails": broken, "record is empty": nil} {
		records := func(yield func(catalog.Record, error) bool) {
			_ = yield(tag, nil) && yield(catalog.Record{}, readErr)
		}
		err := cat.Restore(catalog.Header{Index: 9, ClusterID: "c2", Level: catalog.LevelRequests}, records)
		if errdef.ReasonOf(err) != errdef.SnapshotInvalid || cat.Snapshot() != before {
			t.Errorf("%s: error %v, index %d", name, err, cat.Snapshot().Index())
		}
	}
}

// TestWait waits for an index that comes, and for one that does not.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cat := catalog.New()
		arrived := make(chan catalog.LogIndex)
		go func() {
			s, err := cat.Wait(t.Context(), 3)
			if err != nil {
				t.Error(err)
			}
			arrived <- s.Index()
		}()
		synctest.Wait()
		cat.Apply(catalog.Entry{Index: 2})
		synctest.Wait()
		select {
		case index := <-arrived:
			t.Fatalf("waited for index 3, got %d", index)
		default:
		}
		cat.Apply(catalog.Entry{Index: 4, Command: catalog.SetCluster{ClusterID: "c1"}})
		if index := <-arrived; index != 4 {
			t.Errorf("index %d", index)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := cat.Wait(ended, 4); err != nil {
			t.Errorf("an index that is there needs no waiting: %v", err)
		}
		if _, err := cat.Wait(ended, 5); errdef.ReasonOf(err) != errdef.Canceled {
			t.Errorf("error %v", err)
		}
	})
}
