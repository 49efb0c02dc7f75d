package blobstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/blobstore/storetest"
	"github.com/ocistern/ocistern/internal/errdef"
)

const (
	small = 3000
	large = blobstore.SmallBytes + 3000
)

// begin starts an ingest of data.
func begin(t testing.TB, store *blobstore.Store, data []byte, known bool) *blobstore.Ingest {
	t.Helper()
	want := storetest.Describe(digest.SHA256, data)
	if !known {
		want.Size = -1
	}
	in, err := store.Begin(want)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func write(t testing.TB, in *blobstore.Ingest, data []byte) {
	t.Helper()
	if n, err := in.Write(data); err != nil || n != len(data) {
		t.Fatalf("wrote %d of %d bytes, %v", n, len(data), err)
	}
}

// eachKind runs a test for small and large content, of known and unknown size.
func eachKind(t *testing.T, test func(t *testing.T, data []byte, known bool)) {
	for _, size := range []int{small, large} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d bytes, known %v", size, known), func(t *testing.T) {
				test(t, storetest.Bytes("ingest", size), known)
			})
		}
	}
}

// Any number of readers, each from its own offset and at its own pace, get all bytes while they arrive.
func TestReadersReadAlong(t *testing.T) {
	eachKind(t, func(t *testing.T, data []byte, known bool) {
		store := open(t, t.TempDir(), blobstore.Options{})
		in := begin(t, store, data, known)
		var readers sync.WaitGroup
		for i := range 16 {
			offset := i * len(data) / 15 // the last one begins at the end
			pace := 11 + i*i*100
			readers.Go(func() {
				reader := in.Reader(int64(offset))
				defer reader.Close()
				var got bytes.Buffer
				buffer := make([]byte, pace)
				if _, err := io.CopyBuffer(struct{ io.Writer }{&got}, reader, buffer); err != nil || !bytes.Equal(got.Bytes(), data[offset:]) {
					t.Errorf("reader from %d on got %d bytes, %v", offset, got.Len(), err)
				}
			})
		}
		for rest, size := data, 1; len(rest) > 0; size = size*3 + 1 {
			size = min(size, len(rest))
			write(t, in, rest[:size])
			rest = rest[size:]
		}
		if err := errors.Join(in.Verify(), in.Persist()); err != nil {
			t.Error(err)
		}
		readers.Wait()
	})
}

// No reader gets the last byte before the whole is verified, and every waiting reader gets it then.
func TestLastByteIsWithheld(t *testing.T) {
	eachKind(t, func(t *testing.T, data []byte, known bool) {
		store := open(t, t.TempDir(), blobstore.Options{})
		synctest.Test(t, func(t *testing.T) {
			in := begin(t, store, data, known)
			got := make([]bytes.Buffer, 3)
			var readers sync.WaitGroup
			for i := range got {
				readers.Go(func() {
					reader := in.Reader(int64(i))
					defer reader.Close()
					if _, err := io.Copy(&got[i], reader); err != nil {
						t.Error(err)
					}
				})
			}
			write(t, in, data)
			synctest.Wait() // now all readers are waiting
			for i := range got {
				if !bytes.Equal(got[i].Bytes(), data[i:len(data)-1]) {
					t.Errorf("reader %d has %d bytes before Verify, want %d", i, got[i].Len(), len(data)-1-i)
				}
			}
			if err := in.Verify(); err != nil {
				t.Error(err)
			}
			readers.Wait()
			for i := range got {
				if !bytes.Equal(got[i].Bytes(), data[i:]) {
					t.Errorf("reader %d has %d bytes after Verify", i, got[i].Len())
				}
			}
			in.Abort(nil)
		})
	})
}

// Whatever ends an ingest ends the wait of its readers, each with the reason.
func TestWaitingReadersAreWoken(t *testing.T) {
	cause := errdef.New(errdef.UpstreamTimeout, "no more bytes")
	for name, c := range map[string]struct {
		end  func(in *blobstore.Ingest, reader io.Closer) error
		want errdef.Reason
	}{
		"abort":        {func(in *blobstore.Ingest, _ io.Closer) error { in.Abort(cause); return nil }, errdef.UpstreamTimeout},
		"plain abort":  {func(in *blobstore.Ingest, _ io.Closer) error { in.Abort(nil); return nil }, errdef.Canceled},
		"wrong digest": {func(in *blobstore.Ingest, _ io.Closer) error { _ = in.Verify(); return nil }, errdef.SizeMismatch},
		"restart":      {func(in *blobstore.Ingest, _ io.Closer) error { return in.Restart(cause) }, errdef.UpstreamTimeout},
		"close":        {func(_ *blobstore.Ingest, reader io.Closer) error { return reader.Close() }, errdef.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			store := open(t, t.TempDir(), blobstore.Options{})
			synctest.Test(t, func(t *testing.T) {
				in := begin(t, store, storetest.Bytes("woken", large), true)
				write(t, in, []byte("some"))
				reader := in.Reader(0)
				result := make(chan error, 1)
				go func() {
					_, err := io.Copy(io.Discard, reader)
					result <- err
				}()
				synctest.Wait()
				if err := c.end(in, reader); err != nil {
					t.Error(err)
				}
				if err := <-result; errdef.ReasonOf(err) != c.want || name == "close" && !errors.Is(err, os.ErrClosed) {
					t.Errorf("reader got %v, want %s", err, c.want)
				}
				in.Abort(nil)
			})
		})
	}
}

// After Restart, readers that have had nothing get the right content from its first byte.
func TestRestartKeepsReadersThatHadNothing(t *testing.T) {
	eachKind(t, func(t *testing.T, data []byte, known bool) {
		dir := t.TempDir()
		disk := newFragileDisk(nil, false)
		store := open(t, dir, blobstore.Options{}.WithDisk(disk))
		in := begin(t, store, data, known)
		write(t, in, bytes.Repeat([]byte("x"), len(data)))
		late, deceived := in.Reader(7), in.Reader(0)
		if _, err := deceived.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		wrong := in.Check()
		if errdef.ReasonOf(wrong) != errdef.DigestMismatch {
			t.Fatalf("Check says %v", wrong)
		}
		if err := in.Restart(wrong); err != nil || in.Written() != 0 {
			t.Fatalf("%d bytes after Restart, %v", in.Written(), err)
		}
		write(t, in, data)
		if err := errors.Join(in.Verify(), in.Persist()); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(late); err != nil || !bytes.Equal(got, data[7:]) {
			t.Errorf("a reader that had nothing got %d bytes, %v", len(got), err)
		}
		if _, err := io.ReadAll(deceived); errdef.ReasonOf(err) != errdef.DigestMismatch {
			t.Errorf("a reader of wrong bytes got %v", err)
		}
		_, _ = late.Close(), deceived.Close()
		if left := filesIn(t, dir, "ingest"); len(left) > 0 || disk.open != 0 {
			t.Errorf("left: files %v, %d of them open", left, disk.open)
		}
	})
}

// A reader may come when all is over.
func TestReaderAfterTheEnd(t *testing.T) {
	eachKind(t, func(t *testing.T, data []byte, known bool) {
		store := open(t, t.TempDir(), blobstore.Options{})
		in := begin(t, store, data, known)
		write(t, in, data)
		if err := errors.Join(in.Verify(), in.Persist()); err != nil {
			t.Fatal(err)
		}
		in.Abort(nil) // does nothing any more
		if got := in.Descriptor(); got.Size != int64(len(data)) {
			t.Errorf("descriptor says %d bytes", got.Size)
		}
		for _, offset := range []int{0, 5, len(data)} {
			reader := in.Reader(int64(offset))
			if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, data[offset:]) {
				t.Errorf("reader from %d on got %d bytes, %v", offset, len(got), err)
			}
			_ = reader.Close()
		}
		for _, offset := range []int{-1, len(data) + 1} {
			reader := in.Reader(int64(offset))
			if _, err := io.ReadAll(reader); errdef.ReasonOf(err) != errdef.RangeInvalid {
				t.Errorf("reader from %d on got %v, want %s", offset, err, errdef.RangeInvalid)
			}
			_ = reader.Close()
		}
	})
}

// Verified content is answered before it is durable, stays until it is, and its readers do not care how Persist ends.
func TestVerifiedIsReadableBeforePersist(t *testing.T) {
	eachKind(t, func(t *testing.T, data []byte, known bool) {
		dir, disk := t.TempDir(), newFragileDisk(errors.New("broken"), false)
		store := open(t, dir, blobstore.Options{MemoryBytes: 100}.WithDisk(disk)) // there is never room
		in := begin(t, store, data, known)
		write(t, in, data)
		if err := in.Verify(); err != nil {
			t.Fatal(err)
		}
		dgst := in.Descriptor().Digest
		if _, ok := store.Stat(dgst); ok {
			t.Error("Stat calls it durable")
		}
		content, err := store.Open(dgst)
		if isSmall := len(data) <= blobstore.SmallBytes; isSmall != (err == nil) {
			t.Errorf("Open says %v", err)
		} else if isSmall {
			_ = content.Close()
		}
		reader := in.Reader(0)
		defer reader.Close()
		disk.failAfter(1)
		if err := in.Persist(); errdef.ReasonOf(err) != errdef.StorageFailed {
			t.Errorf("Persist says %v", err)
		}
		if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, data) {
			t.Errorf("reader got %d bytes, %v", len(got), err)
		}
		if left := filesIn(t, dir, "ingest", "blobs"); len(left) > 0 {
			t.Errorf("left on disk: %v", left)
		}
		if usage := store.Usage(); usage != (blobstore.Usage{}) {
			t.Errorf("usage is %+v", usage)
		}
	})
}

func TestOutOfOrderCallsAreRefused(t *testing.T) {
	store := open(t, t.TempDir(), blobstore.Options{})
	data := storetest.Bytes("order", small)
	in := begin(t, store, data, true)
	write(t, in, data)
	if err := in.Verify(); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func(in *blobstore.Ingest) error{
		"Verify twice":         func(in *blobstore.Ingest) error { return in.Verify() },
		"Restart after Verify": func(in *blobstore.Ingest) error { return in.Restart(io.EOF) },
		"Check after Verify":   func(in *blobstore.Ingest) error { return in.Check() },
	} {
		if err := call(in); errdef.ReasonOf(err) != errdef.Internal {
			t.Errorf("%s: got %v", name, err)
		}
		in = begin(t, store, data, true)
		write(t, in, data)
		if err := in.Verify(); err != nil {
			t.Fatal(err)
		}
	}
	if err := begin(t, store, data, true).Restart(nil); errdef.ReasonOf(err) != errdef.Internal {
		t.Errorf("Restart without a cause: got %v", err)
	}
	if err := begin(t, store, data, true).Persist(); errdef.ReasonOf(err) != errdef.Internal {
		t.Errorf("Persist before Verify: got %v", err)
	}
}

// Ingests of the same content do not disturb each other; afterwards there is one copy.
func TestConcurrentIngestsOfOneDigest(t *testing.T) {
	eachKind(t, func(t *testing.T, data []byte, known bool) {
		dir := t.TempDir()
		store := open(t, dir, blobstore.Options{MemoryBytes: 1 << 20})
		var writers sync.WaitGroup
		for range 8 {
			writers.Go(func() {
				in := begin(t, store, data, known)
				_, err := io.Copy(in, bytes.NewReader(data))
				if err := errors.Join(err, in.Verify(), in.Persist()); err != nil {
					t.Error(err)
				}
				content, err := store.Open(in.Descriptor().Digest)
				if err != nil {
					t.Error(err)
					return
				}
				defer content.Close()
				if got, err := io.ReadAll(content); err != nil || !bytes.Equal(got, data) {
					t.Errorf("got %d bytes, %v", len(got), err)
				}
			})
		}
		writers.Wait()
		if usage := store.Usage(); usage.Blobs != 1 || usage.Bytes != int64(len(data)) {
			t.Errorf("usage is %+v", usage)
		}
		if found := filesIn(t, dir, "ingest", "blobs"); len(found) != 1 {
			t.Errorf("on disk: %v", found)
		}
	})
}

// Abort may come from anywhere at any time, and nothing is left.
func TestAbortWhileWriting(t *testing.T) {
	dir := t.TempDir()
	disk := newFragileDisk(nil, false)
	store := open(t, dir, blobstore.Options{}.WithDisk(disk))
	cause := errdef.New(errdef.Deadline, "too slow")
	data := storetest.Bytes("abort", large)
	for i := range 200 {
		in := begin(t, store, data, i%2 == 0)
		reached := make(chan struct{})
		var aborting sync.WaitGroup
		aborting.Go(func() {
			<-reached
			in.Abort(cause)
		})
		var err error
		for at := 0; at < len(data) && err == nil; at += len(data) / 10 {
			if at/(len(data)/10) == i%10 {
				close(reached)
			}
			_, err = in.Write(data[at:min(at+len(data)/10, len(data))])
		}
		if err == nil {
			err = in.Verify()
		}
		if err == nil {
			err = in.Persist()
		}
		if err != nil && !errors.Is(err, cause) {
			t.Fatalf("the writer got %v", err)
		}
		aborting.Wait()
		if err := store.Remove(in.Descriptor().Digest); err != nil {
			t.Fatal(err)
		}
	}
	if left := filesIn(t, dir, "ingest", "blobs"); len(left) > 0 || disk.open != 0 {
		t.Errorf("left: files %v, %d of them open", left, disk.open)
	}
}

// However the bytes are split, and whether or not wrong ones came first, what comes out is what went in.
func FuzzIngest(f *testing.F) {
	f.Add(uint32(small), []byte{1, 2, 3}, uint32(0), true, false)
	f.Add(uint32(large), []byte{255, 0, 128}, uint32(1000), false, true)
	f.Add(uint32(blobstore.SmallBytes), []byte{}, uint32(blobstore.SmallBytes), true, true)
	dir := f.TempDir()
	store := open(f, dir, blobstore.Options{MemoryBytes: 1 << 20}.WithDisk(newFragileDisk(nil, false)))
	f.Fuzz(func(t *testing.T, size uint32, splits []byte, offset uint32, known, restart bool) {
		size %= 3 * blobstore.SmallBytes
		offset %= size + 1
		data := storetest.Bytes("fuzz", int(size))
		in := begin(t, store, data, known)
		if restart && size > 0 {
			write(t, in, bytes.Repeat([]byte("x"), int(size)/2))
			if err := in.Restart(io.ErrUnexpectedEOF); err != nil {
				t.Fatal(err)
			}
		}
		reader := in.Reader(int64(offset))
		defer reader.Close()
		read := make(chan error, 1)
		var got []byte
		go func() {
			var err error
			got, err = io.ReadAll(reader)
			read <- err
		}()
		rest := data
		for _, split := range splits {
			n := min(len(rest), int(split)*1024)
			write(t, in, rest[:n])
			rest = rest[n:]
		}
		write(t, in, rest)
		if err := errors.Join(in.Verify(), in.Persist()); err != nil {
			t.Fatal(err)
		}
		if err := <-read; err != nil || !bytes.Equal(got, data[offset:]) {
			t.Fatalf("reader from %d on got %d bytes, %v", offset, len(got), err)
		}
		content, err := store.Open(digest.FromBytes(data))
		if err != nil {
			t.Fatal(err)
		}
		defer content.Close()
		if stored, err := io.ReadAll(content); err != nil || !bytes.Equal(stored, data) {
			t.Fatalf("stored are %d bytes, %v", len(stored), err)
		}
	})
}

var _ io.Writer = (*blobstore.Ingest)(nil)

func TestBeginKeepsTheDescriptor(t *testing.T) {
	store := open(t, t.TempDir(), blobstore.Options{})
	want := ocispec.Descriptor{MediaType: "a/b", Digest: digest.FromString("x"), Size: -1}
	in, err := store.Begin(want)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Abort(nil)
	if got := in.Descriptor(); got.MediaType != want.MediaType || got.Digest != want.Digest || got.Size != -1 {
		t.Errorf("descriptor is %+v", got)
	}
}
