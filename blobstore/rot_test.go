package blobstore_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/blobstore/storetest"
	"github.com/ocistern/ocistern/internal/errdef"
)

func blobPath(dir string, dgst digest.Digest) string {
	return filepath.Join(dir, "blobs", dgst.Algorithm().String(), dgst.Encoded())
}

// rots are ways in which a file goes bad.
func rots() map[string]func(data []byte) []byte {
	return map[string]func([]byte) []byte{
		"first byte":  func(data []byte) []byte { data[0] ^= 1; return data },
		"last byte":   func(data []byte) []byte { data[len(data)-1] ^= 0x80; return data },
		"truncated":   func(data []byte) []byte { return data[:len(data)/2] },
		"empty":       func([]byte) []byte { return nil },
		"grown":       func(data []byte) []byte { return append(data, 0) },
		"becomes big": func(data []byte) []byte { return append(data, make([]byte, blobstore.SmallBytes)...) },
	}
}

// rotten returns a store, restarted after a file has gone bad.
func rotten(t *testing.T, size int, rot func([]byte) []byte, options blobstore.Options) (*blobstore.Store, string, []byte) {
	t.Helper()
	dir, data := t.TempDir(), storetest.Bytes("rot", size)
	store := open(t, dir, options)
	storetest.Put(t, store, storetest.Describe(digest.SHA256, data), data)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blobPath(dir, digest.FromBytes(data)), rot(bytes.Clone(data)), 0o600); err != nil {
		t.Fatal(err)
	}
	return open(t, dir, options), dir, data
}

// Guarantee G4: a file that has gone bad is never served. It is quarantined once, however many ask, and new content
// heals it.
func TestRotIsQuarantined(t *testing.T) {
	for name, rot := range rots() {
		for _, size := range []int{small, large} {
			var told atomic.Int32
			options := blobstore.Options{MemoryBytes: 1 << 20, Lost: func(digest.Digest) { told.Add(1) }}
			store, dir, data := rotten(t, size, rot, options)
			dgst := digest.FromBytes(data)
			var callers sync.WaitGroup
			var corrupt atomic.Int32
			for range 8 {
				callers.Go(func() {
					switch _, err := store.Open(dgst); errdef.ReasonOf(err) {
					case errdef.ContentCorrupt:
						corrupt.Add(1)
					case errdef.NotFound: // came after the others
					default:
						t.Errorf("%s, %d bytes: Open says %v", name, size, err)
					}
				})
			}
			callers.Wait()
			if corrupt.Load() == 0 || told.Load() != 1 {
				t.Errorf("%s: %d callers and %d times the hook were told", name, corrupt.Load(), told.Load())
			}
			if _, ok := store.Stat(dgst); ok || store.Usage() != (blobstore.Usage{}) {
				t.Errorf("%s: still counted: %+v", name, store.Usage())
			}
			if kept := filesIn(t, dir, "quarantine"); len(kept) != 1 {
				t.Errorf("%s: quarantine holds %v", name, kept)
			}
			storetest.Put(t, store, storetest.Describe(digest.SHA256, data), data)
			if _, err := readAll(store, dgst); err != nil {
				t.Errorf("%s: not healed: %v", name, err)
			}
		}
	}
}

func readAll(store *blobstore.Store, dgst digest.Digest) ([]byte, error) {
	content, err := store.Open(dgst)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	return io.ReadAll(content)
}

// The test above must see a store that trusts its disk.
func TestRotTestSeesBlindTrust(t *testing.T) {
	store, _, data := rotten(t, large, rots()["last byte"], blobstore.Options{})
	store.TrustBlindly(digest.FromBytes(data))
	if got, err := readAll(store, digest.FromBytes(data)); err != nil || bytes.Equal(got, data) {
		t.Errorf("the planted bug serves no wrong bytes: %v", err)
	}
}

// Small content is verified whenever it is read from disk, large content once: that is what a later rot shows.
func TestWhenContentIsVerified(t *testing.T) {
	for _, c := range []struct {
		size   int
		memory int64
		want   error
	}{
		{small, 1 << 20, nil},                      // in memory, the file is not looked at
		{small, 0, errdef.ErrContentCorrupt},       // read from disk again
		{large, 1 << 20, errdef.ErrContentCorrupt}, // after the restart
	} {
		dir, data := t.TempDir(), storetest.Bytes("verified", c.size)
		dgst, options := digest.FromBytes(data), blobstore.Options{MemoryBytes: c.memory}
		store := open(t, dir, options)
		storetest.Put(t, store, storetest.Describe(digest.SHA256, data), data)
		store = reopen(t, store, dir, options)
		if _, err := readAll(store, dgst); err != nil {
			t.Fatal(err)
		}
		if c.size == large {
			store = reopen(t, store, dir, options)
		}
		if err := os.WriteFile(blobPath(dir, dgst), make([]byte, c.size), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readAll(store, dgst); !errors.Is(err, c.want) {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}

// Verified content that has replaced a corrupt file while that was being checked is not what goes to quarantine.
func TestQuarantineSparesWhatWasHealed(t *testing.T) {
	store, dir, data := rotten(t, large, rots()["first byte"], blobstore.Options{})
	dgst := digest.FromBytes(data)
	checked, err := os.Stat(blobPath(dir, dgst))
	if err != nil {
		t.Fatal(err)
	}
	storetest.Put(t, store, storetest.Describe(digest.SHA256, data), data)
	for range 2 { // the second time it is not there at all
		if moved, err := store.Quarantine(dgst, checked); moved || err != nil {
			t.Errorf("moved: %v, %v", moved, err)
		}
		if err := store.Remove(dgst); err != nil {
			t.Fatal(err)
		}
	}
}

// A file that somebody removed by hand is absent, not an error of the disk.
func TestRemovedByHand(t *testing.T) {
	dir, data := t.TempDir(), storetest.Bytes("by hand", large)
	store := open(t, dir, blobstore.Options{})
	storetest.Put(t, store, storetest.Describe(digest.SHA256, data), data)
	if err := os.Remove(blobPath(dir, digest.FromBytes(data))); err != nil {
		t.Fatal(err)
	}
	if _, err := readAll(store, digest.FromBytes(data)); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("got %v, want not found", err)
	}
}

// Content goes over TCP whole, in part, from disk and from memory.
func TestContentOverTCP(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	store := open(t, t.TempDir(), blobstore.Options{MemoryBytes: 1 << 20})
	for _, size := range []int{small, large} {
		data := storetest.Bytes("tcp", size)
		storetest.Put(t, store, storetest.Describe(digest.SHA256, data), data)
		content, err := store.Open(digest.FromBytes(data))
		if err != nil {
			t.Fatal(err)
		}
		defer content.Close()
		if _, err := content.SyscallConn(); (err == nil) != (size == large) {
			t.Errorf("%d bytes: a file for sendfile: %v", size, err)
		}
		sent := make(chan error, 1)
		go func() {
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err == nil {
				_, err = io.CopyN(conn, content, 1000)
				if err == nil {
					_, err = io.Copy(conn, content)
				}
				err = errors.Join(err, conn.Close())
			}
			sent <- err
		}()
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		if err := errors.Join(err, conn.Close(), <-sent); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d of %d bytes arrived, %v", len(got), size, err)
		}
	}
}
