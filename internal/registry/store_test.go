package registry_test

import (
	"log/slog"
	"testing"

	"github.com/ocistern/ocistern/blobstore"
)

// openStore opens a blobstore for the rest of the test; closing it before is allowed.
func openStore(t *testing.T, dir string) *blobstore.Store {
	t.Helper()
	store, err := blobstore.Open(dir, blobstore.Options{MemoryBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() }) // fails only when the test has closed it
	return store
}
