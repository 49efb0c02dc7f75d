package blobstore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/blobstore/storetest"
	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/testdisk"
)

const (
	shedFloor = 8 << 20
	shedBlob  = 1 << 20
)

// crowded is a store on a small disk with small content, and as much large content as there is room for, oldest first.
type crowded struct {
	*blobstore.Store
	dir   string
	small digest.Digest
	large []digest.Digest

	mutex sync.Mutex // guards lost
	lost  []digest.Digest
}

func newCrowded(t *testing.T, kind string) *crowded {
	t.Helper()
	disk := testdisk.Mount(t, kind, 32<<20)
	c := &crowded{dir: filepath.Join(disk, "content")}
	var err error
	c.Store, err = blobstore.Open(c.dir, blobstore.Options{FreeBytes: shedFloor, Lost: func(dgst digest.Digest) {
		c.mutex.Lock()
		defer c.mutex.Unlock()
		c.lost = append(c.lost, dgst)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	c.small = c.put(t, "small", 1000)
	for i := range 100 {
		if free, _, err := c.Space(); err != nil || free < shedFloor+3*shedBlob/2 {
			return c
		}
		c.large = append(c.large, c.put(t, fmt.Sprint(i), shedBlob))
	}
	t.Fatal("the disk is not small")
	return nil
}

func (c *crowded) put(t *testing.T, seed string, size int) digest.Digest {
	t.Helper()
	data := storetest.Bytes(seed, size)
	want := storetest.Describe(digest.SHA256, data)
	storetest.Put(t, c.Store, want, data)
	return want.Digest
}

func (c *crowded) open(t *testing.T, dgst digest.Digest) {
	t.Helper()
	content, err := c.Open(dgst)
	if err != nil {
		t.Fatal(err)
	}
	if err := content.Close(); err != nil {
		t.Error(err)
	}
}

// keepsTo checks that others have what is left to them, and that what went is what was told.
func (c *crowded) keepsTo(t *testing.T, want []digest.Digest) {
	t.Helper()
	if free, err := durable.Free(c.dir); err != nil || free < shedFloor {
		t.Errorf("%d bytes are free, %v", free, err)
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if !slices.Equal(c.lost, want) {
		t.Errorf("told of %v, want %v", c.lost, want)
	}
	for _, dgst := range append(c.large, c.small) {
		if _, held := c.Stat(dgst); held == slices.Contains(want, dgst) {
			t.Errorf("%s: held %t", dgst, held)
		}
	}
	var bytes int64
	for blob, err := range c.All() {
		if err != nil {
			t.Fatal(err)
		}
		if blob.Size > blobstore.SmallBytes {
			bytes += blob.Size
		}
	}
	if usage := c.Usage(); usage.LargeBytes != bytes {
		t.Errorf("%d bytes of large content are counted, %d are there", usage.LargeBytes, bytes)
	}
}

// On a full disk, large content that was not used for long makes room for what comes, be it large or small, and for others who
// fill the disk. Small content stays.
func TestShed(t *testing.T) {
	for _, kind := range testdisk.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			c := newCrowded(t, kind)
			c.open(t, c.large[0])
			fresh := c.put(t, "fresh", 2*shedBlob)
			c.keepsTo(t, c.large[1:3])
			others := filepath.Join(filepath.Dir(c.dir), "others")
			if err := os.WriteFile(others, make([]byte, 3*shedBlob), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := c.MakeRoom(); err != nil {
				t.Fatal(err)
			}
			if _, held := c.Stat(fresh); !held {
				t.Error("what had just come has gone")
			}
			c.keepsTo(t, c.lost)
			if _, held := c.Stat(c.large[0]); !held || len(c.lost) < 4 || len(c.lost) > 6 {
				t.Errorf("of %d blobs %d went; the one that was used is held: %t", len(c.large), len(c.lost), held)
			}
		})
	}
}

// What would not fit even then is refused, at once where its size is known, and what is there stays for it. Content of unknown
// size, and several that come at a time, stop where others' part of the disk begins.
func TestShedIsBounded(t *testing.T) {
	for _, kind := range testdisk.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			c := newCrowded(t, kind)
			begin := func(name string, size int64) *blobstore.Ingest {
				in, err := c.Begin(ocispec.Descriptor{Digest: digest.FromString(name), Size: size})
				if err != nil {
					t.Fatal(err)
				}
				return in
			}
			huge := begin("huge", 1<<30)
			if _, err := huge.Write(make([]byte, 1)); !errors.Is(err, errdef.ErrStorageFull) {
				t.Errorf("huge: %v", err)
			}
			c.keepsTo(t, nil)

			pair := []*blobstore.Ingest{begin("endless", -1), begin("another", -1)}
			for written := 0; len(pair) > 0 && written < 64; written++ {
				pair = slices.DeleteFunc(pair, func(in *blobstore.Ingest) bool {
					_, err := in.Write(make([]byte, shedBlob))
					if err != nil && !errors.Is(err, errdef.ErrStorageFull) {
						t.Error(err)
					}
					return err != nil
				})
				if free, err := durable.Free(c.dir); err != nil || free < shedFloor/2 {
					t.Fatalf("%d bytes are free, %v", free, err)
				}
			}
			if len(pair) > 0 {
				t.Errorf("%d have no end", len(pair))
			}
			c.keepsTo(t, c.lost)
		})
	}
}
