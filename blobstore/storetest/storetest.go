// Package storetest is the contract of a store of content by digest, as tests that run on any implementation. It is for
// tests only.
package storetest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Store is what the contract is about.
type Store interface {
	Begin(want ocispec.Descriptor) (*blobstore.Ingest, error)
	Open(dgst digest.Digest) (*blobstore.Content, error)
	Stat(dgst digest.Digest) (int64, bool)
	Remove(dgst digest.Digest) error
}

// Bytes returns size bytes that depend on seed.
func Bytes(seed string, size int) []byte {
	block := sha256.Sum256([]byte(seed))
	out := make([]byte, 0, size+len(block))
	for len(out) < size {
		out = append(out, block[:]...)
		block = sha256.Sum256(block[:])
	}
	return out[:size]
}

// Describe returns the descriptor of content.
func Describe(algorithm digest.Algorithm, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: algorithm.FromBytes(data), Size: int64(len(data))}
}

// Put ingests content and persists it.
func Put(t testing.TB, store Store, want ocispec.Descriptor, data []byte) {
	t.Helper()
	in, err := store.Begin(want)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(in, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(in.Verify(), in.Persist()); err != nil {
		t.Fatal(err)
	}
}

// Run checks the contract on a new store for each case.
func Run(t *testing.T, open func(t *testing.T) Store) {
	t.Run("content comes back whole", func(t *testing.T) { wholeContent(t, open(t)) })
	t.Run("wrong content leaves nothing", func(t *testing.T) { wrongContent(t, open(t)) })
	t.Run("content can be removed", func(t *testing.T) { removal(t, open(t)) })
	t.Run("what is no digest is refused", func(t *testing.T) { badDigests(t, open(t)) })
}

func wholeContent(t *testing.T, store Store) {
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		for _, size := range []int{0, 1, 2048, blobstore.SmallBytes, blobstore.SmallBytes + 1, 3 << 20} {
			for _, known := range []bool{true, false} {
				data := Bytes("whole", size)
				want := Describe(algorithm, data)
				if !known {
					want.Size = -1
				}
				Put(t, store, want, data)
				expect(t, store, want.Digest, data)
				if got, ok := store.Stat(want.Digest); !ok || got != int64(size) {
					t.Errorf("Stat says %d, %v for %d bytes", got, ok, size)
				}
			}
		}
	}
}

// expect opens content and reads it in every way there is.
func expect(t *testing.T, store Store, dgst digest.Digest, data []byte) {
	t.Helper()
	content, err := store.Open(dgst)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	if content.Size() != int64(len(data)) {
		t.Errorf("size is %d, want %d", content.Size(), len(data))
	}
	if len(data) <= 2048 { // the test reads byte by byte
		if err := iotest.TestReader(io.NewSectionReader(content, 0, content.Size()), data); err != nil {
			t.Errorf("ReadAt: %v", err)
		}
	}
	if got, err := io.ReadAll(struct{ io.Reader }{content}); err != nil || !bytes.Equal(got, data) {
		t.Errorf("Read gave %d bytes, %v", len(got), err)
	}
	half := int64(len(data) / 2)
	if _, err := content.Seek(half, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	var tail bytes.Buffer
	if _, err := content.WriteTo(&tail); err != nil || !bytes.Equal(tail.Bytes(), data[half:]) {
		t.Errorf("WriteTo gave %d bytes from %d on, %v", tail.Len(), half, err)
	}
}

func wrongContent(t *testing.T, store Store) {
	for _, size := range []int{2048, blobstore.SmallBytes + 100} {
		data := Bytes("right", size)
		for _, c := range []struct {
			name   string
			want   int64
			sent   []byte
			reason errdef.Reason
		}{
			{"other bytes", int64(size), Bytes("wrong", size), errdef.DigestMismatch},
			{"other bytes, size not known", -1, Bytes("wrong", size), errdef.DigestMismatch},
			{"too few", int64(size), data[:size-1], errdef.SizeMismatch},
			{"too many", int64(size), append(data[:size:size], 'x'), errdef.SizeMismatch},
			{"none", int64(size), nil, errdef.SizeMismatch},
			{"other size announced", int64(size) + 1, data, errdef.SizeMismatch},
		} {
			want := Describe(digest.SHA256, data)
			want.Size = c.want
			in, err := store.Begin(want)
			if err != nil {
				t.Fatal(err)
			}
			reader := in.Reader(0)
			_, err = io.Copy(in, bytes.NewReader(c.sent))
			if err == nil {
				err = in.Verify()
			}
			if errdef.ReasonOf(err) != c.reason {
				t.Errorf("%s: writer got %v, want %s", c.name, err, c.reason)
			}
			if err := in.Persist(); err == nil {
				t.Errorf("%s: was persisted", c.name)
			}
			if got, err := io.ReadAll(reader); errdef.ReasonOf(err) != c.reason {
				t.Errorf("%s: reader got %d bytes and %v, want %s", c.name, len(got), err, c.reason)
			}
			_ = reader.Close()
			if _, err := store.Open(want.Digest); !errors.Is(err, errdef.ErrNotFound) {
				t.Errorf("%s: Open says %v, want not found", c.name, err)
			}
		}
	}
}

func removal(t *testing.T, store Store) {
	for _, size := range []int{2048, blobstore.SmallBytes + 1} {
		data := Bytes("removed", size)
		want := Describe(digest.SHA256, data)
		Put(t, store, want, data)
		held, err := store.Open(want.Digest)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := store.Remove(want.Digest); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := store.Open(want.Digest); !errors.Is(err, errdef.ErrNotFound) {
			t.Errorf("removed content opens with %v, want not found", err)
		}
		if _, ok := store.Stat(want.Digest); ok {
			t.Error("Stat still knows removed content")
		}
		if got, err := io.ReadAll(held); err != nil || !bytes.Equal(got, data) {
			t.Errorf("a reader that had it open got %d bytes, %v", len(got), err)
		}
		_ = held.Close()
		Put(t, store, want, data)
		expect(t, store, want.Digest, data)
	}
}

func badDigests(t *testing.T, store Store) {
	for _, text := range []string{
		"", "sha256:", "sha256:zz", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:../../../../etc/passwd",
		"sha384:" + digest.SHA384.FromString("x").Encoded(), "sha256:" + digest.SHA512.FromString("x").Encoded(),
	} {
		dgst := digest.Digest(text)
		_, openErr := store.Open(dgst)
		_, beginErr := store.Begin(ocispec.Descriptor{Digest: dgst, Size: 1})
		for _, err := range []error{openErr, beginErr, store.Remove(dgst)} {
			if !errors.Is(err, errdef.ErrDigestInvalid) {
				t.Errorf("%q: got %v, want an invalid digest", text, err)
			}
		}
		if _, ok := store.Stat(dgst); ok {
			t.Errorf("%q: Stat knows it", text)
		}
	}
}
