package blobstore_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/content/oci"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/blobstore/storetest"
	"github.com/ocistern/ocistern/internal/errdef"
)

func open(t testing.TB, dir string, options blobstore.Options) *blobstore.Store {
	t.Helper()
	store, err := blobstore.Open(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// reopen is a restart of the node.
func reopen(t testing.TB, store *blobstore.Store, dir string, options blobstore.Options) *blobstore.Store {
	t.Helper()
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, dir, options)
}

// filesIn returns the names of the regular files below a directory of the store.
func filesIn(t testing.TB, dir string, names ...string) []string {
	t.Helper()
	var found []string
	for _, name := range names {
		err := filepath.WalkDir(filepath.Join(dir, name), func(path string, entry os.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				found = append(found, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func TestContract(t *testing.T) {
	for name, memory := range map[string]int64{"memory tier": 8 << 20, "tiny memory tier": 3 << 10, "no memory tier": 0} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) storetest.Store {
				dir := t.TempDir()
				t.Cleanup(func() {
					if left := filesIn(t, dir, "ingest", "quarantine"); len(left) > 0 {
						t.Errorf("left on disk: %v", left)
					}
				})
				return open(t, dir, blobstore.Options{MemoryBytes: memory})
			})
		})
	}
}

// oras-go takes the directory for what it is: an OCI image layout.
func TestDirectoryIsAnImageLayout(t *testing.T) {
	dir := t.TempDir()
	store := open(t, dir, blobstore.Options{})
	layout, err := oci.NewFromFS(context.Background(), os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		data := storetest.Bytes("layout", 5000)
		want := storetest.Describe(algorithm, data)
		storetest.Put(t, store, want, data)
		reader, err := layout.Fetch(context.Background(), want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(reader); err != nil || string(got) != string(data) {
			t.Errorf("oras-go read %d bytes, %v", len(got), err)
		}
		_ = reader.Close()
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	store := open(t, dir, blobstore.Options{})
	_, err := blobstore.Open(dir, blobstore.Options{})
	if errdef.ReasonOf(err) != errdef.DirectoryInUse || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want %s that names the directory", err, errdef.DirectoryInUse)
	}
	reopen(t, store, dir, blobstore.Options{})
}

func TestForeignDirectoriesAreRefused(t *testing.T) {
	for name, content := range map[string]string{
		"oci-layout": `{"imageLayoutVersion":"2.0.0"}`,
		"index.json": `{"schemaVersion":2,"manifests":[{"mediaType":"a/b","digest":"sha256:x","size":1}]}`,
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := blobstore.Open(dir, blobstore.Options{}); errdef.ReasonOf(err) != errdef.ConfigInvalid {
			t.Errorf("%s: got %v, want %s", name, err, errdef.ConfigInvalid)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Errorf("%s was changed to %q, %v", name, got, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := blobstore.Open(file, blobstore.Options{}); errdef.ReasonOf(err) != errdef.StorageFailed {
		t.Errorf("a file as directory: got %v, want %s", err, errdef.StorageFailed)
	}
}

// Usage, All and Stat agree, also after a restart, and what is no content is not counted.
func TestInventory(t *testing.T) {
	dir := t.TempDir()
	options := blobstore.Options{MemoryBytes: 1 << 20}
	store := open(t, dir, options)
	want := map[digest.Digest]int64{}
	for i, size := range []int{0, 100, 2000, blobstore.SmallBytes + 7} {
		data := storetest.Bytes("inventory", size)
		desc := storetest.Describe([]digest.Algorithm{digest.SHA256, digest.SHA512}[i%2], data)
		storetest.Put(t, store, desc, data)
		storetest.Put(t, store, desc, data) // once more changes nothing
		want[desc.Digest] = desc.Size
	}
	gone := storetest.Bytes("gone", 10)
	storetest.Put(t, store, storetest.Describe(digest.SHA256, gone), gone)
	if err := store.Remove(digest.FromBytes(gone)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "blobs", "sha256", "README"), []byte("no content"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, total := map[digest.Digest]int64{}, int64(0)
		for blob, err := range store.All() {
			if err != nil {
				t.Fatal(err)
			}
			got[blob.Digest] = blob.Size
			total += blob.Size
			if size, ok := store.Stat(blob.Digest); !ok || size != blob.Size {
				t.Errorf("Stat says %d, %v; All says %d", size, ok, blob.Size)
			}
		}
		if len(got) != len(want) {
			t.Errorf("All yields %v, want %v", got, want)
		}
		for dgst, size := range want {
			if got[dgst] != size {
				t.Errorf("%s has %d bytes, want %d", dgst, got[dgst], size)
			}
		}
		usage := store.Usage()
		if usage.Blobs != int64(len(want)) || usage.Bytes != total {
			t.Errorf("usage is %+v, want %d blobs and %d bytes", usage, len(want), total)
		}
		store = reopen(t, store, dir, options)
	}
}

func TestClosedStoreRefuses(t *testing.T) {
	dir := t.TempDir()
	store := open(t, dir, blobstore.Options{MemoryBytes: 1 << 20})
	data := storetest.Bytes("closed", 100)
	in, err := store.Begin(storetest.Describe(digest.SHA256, data))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := in.Verify(); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"Persist": in.Persist(), "Remove": store.Remove(digest.FromBytes(data))} {
		if errdef.ReasonOf(err) != errdef.Unavailable {
			t.Errorf("%s on a closed store: %v, want %s", name, err, errdef.Unavailable)
		}
	}
	if left := filesIn(t, dir, "blobs", "ingest"); len(left) > 0 {
		t.Errorf("left on disk: %v", left)
	}
}
