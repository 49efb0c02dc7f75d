package blobstore_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Below the floor nothing is stored, and nothing of it is left on the disk; small content is read along all the same.
func TestNoRoom(t *testing.T) {
	dir := t.TempDir()
	store, err := blobstore.Open(dir, blobstore.Options{FreeBytes: math.MaxInt64})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	if free, full, err := store.Space(); err != nil || !full || free == 0 {
		t.Errorf("%d free, full %t, %v", free, full, err)
	}
	for _, c := range []struct {
		size   int
		served bool
	}{{1000, true}, {blobstore.SmallBytes + 1, false}} {
		content := bytes.Repeat([]byte("x"), c.size)
		in, err := store.Begin(ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(c.size)})
		if err != nil {
			t.Fatal(err)
		}
		reader := in.Reader(0)
		_, err = in.Write(content)
		if c.served {
			err = errors.Join(err, in.Verify(), in.Persist())
			got, readErr := io.ReadAll(reader)
			if readErr != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes: read %d, %v", c.size, len(got), readErr)
			}
		}
		if !errors.Is(err, errdef.ErrStorageFull) {
			t.Errorf("%d bytes: %v", c.size, err)
		}
		if _, err := store.Open(digest.FromBytes(content)); !errors.Is(err, errdef.ErrNotFound) {
			t.Errorf("%d bytes: stored: %v", c.size, err)
		}
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*", "*", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind %v, %v", left, err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}
