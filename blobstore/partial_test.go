package blobstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/blobstore/storetest"
	"github.com/ocistern/ocistern/internal/errdef"
)

const testOrigin = "default up.test/org/app"

var errCut = errdef.New(errdef.UpstreamUnavailable, "the answer was cut off")

// goOn continues content; a negative size is not known.
func goOn(t testing.TB, store *blobstore.Store, data []byte, size int64) *blobstore.Ingest {
	t.Helper()
	want := storetest.Describe(digest.SHA256, data)
	want.Size = size
	in, err := store.Continue(want, testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func noTick() error { return nil }

// leave leaves the first bytes of data as a partial.
func leave(t testing.TB, store *blobstore.Store, data []byte, part int) {
	t.Helper()
	in := goOn(t, store, data, int64(len(data)))
	if err := in.Resume(noTick); err != nil {
		t.Fatal(err)
	}
	write(t, in, data[in.Written():part])
	in.Suspend(errCut)
}

// finish writes what is missing, as a source would, and begins anew once when the whole is wrong.
func finish(in *blobstore.Ingest, data []byte) error {
	if err := in.Resume(noTick); err != nil {
		return err
	}
	for again := true; again; {
		again = in.Written() > 0
		if _, err := in.Write(data[in.Written():]); err != nil {
			return err
		}
		wrong := in.Check()
		if wrong == nil || !again {
			break
		}
		if err := in.Restart(wrong); err != nil {
			return err
		}
	}
	return errors.Join(in.Verify(), in.Persist())
}

// What was left, by an ingest that was suspended or by a process that died, is continued, also after a restart; readers
// read along from its first byte.
func TestPartialsAreContinued(t *testing.T) {
	data := storetest.Bytes("partial", 4*blobstore.SmallBytes)
	part := len(data) - 1000
	for _, size := range []int64{int64(len(data)), -1} {
		for _, died := range []bool{false, true} {
			for _, restart := range []bool{died, true} {
				t.Run(fmt.Sprintf("size %d, died %v, restart %v", size, died, restart), func(t *testing.T) {
					dir := t.TempDir()
					store := open(t, dir, blobstore.Options{})
					if died {
						write(t, goOn(t, store, data, size), data[:part])
					} else {
						leave(t, store, data, part)
					}
					if restart {
						store = reopen(t, store, dir, blobstore.Options{})
					}
					if left := store.Partial(digest.FromBytes(data), testOrigin); left != int64(part) {
						t.Fatalf("%d bytes are left, want %d", left, part)
					}
					in := goOn(t, store, data, size)
					reader := in.Reader(100)
					defer reader.Close()
					if err := in.Resume(func() error {
						_, err := io.ReadFull(reader, make([]byte, 1000)) // while it is hashed
						return err
					}); err != nil || in.Written() != int64(part) {
						t.Fatalf("continued with %d bytes, %v", in.Written(), err)
					}
					write(t, in, data[part:])
					if err := errors.Join(in.Verify(), in.Persist()); err != nil {
						t.Fatal(err)
					}
					if got, err := readAll(store, digest.FromBytes(data)); err != nil || !bytes.Equal(got, data) {
						t.Errorf("got %d bytes, %v", len(got), err)
					}
					if left := filesIn(t, dir, "ingest"); len(left) > 0 {
						t.Errorf("left behind: %v", left)
					}
				})
			}
		}
	}
}

// What cannot be continued is not there, and not on the disk for long.
func TestWhatIsNotContinued(t *testing.T) {
	data := storetest.Bytes("partial", 4*blobstore.SmallBytes)
	dgst, size := digest.FromBytes(data), int64(len(data))
	half := len(data) / 2
	for name, c := range map[string]struct {
		options blobstore.Options
		leave   func(t *testing.T, store *blobstore.Store)
	}{
		"small content": {leave: func(t *testing.T, store *blobstore.Store) {
			leave(t, store, data, blobstore.SmallBytes)
		}},
		"aborted": {leave: func(t *testing.T, store *blobstore.Store) {
			in := goOn(t, store, data, size)
			write(t, in, data[:half])
			in.Abort(nil)
		}},
		"begun, not continued": {leave: func(t *testing.T, store *blobstore.Store) {
			write(t, begin(t, store, data, true), data[:half])
		}},
		"begun and suspended": {leave: func(t *testing.T, store *blobstore.Store) {
			in := begin(t, store, data, true)
			write(t, in, data[:half])
			in.Suspend(nil)
		}},
		"dropped": {leave: func(t *testing.T, store *blobstore.Store) {
			leave(t, store, data, half)
			store.DropPartial(dgst, testOrigin)
		}},
		"too old": {blobstore.Options{PartialAge: time.Nanosecond}, func(t *testing.T, store *blobstore.Store) {
			leave(t, store, data, half)
		}},
		"too large": {blobstore.Options{PartialBytes: int64(half) - 1}, func(t *testing.T, store *blobstore.Store) {
			leave(t, store, data, half)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			store := open(t, dir, c.options)
			c.leave(t, store)
			store = reopen(t, store, dir, c.options)
			if left := store.Partial(dgst, testOrigin); left > 0 {
				t.Errorf("%d bytes are left", left)
			}
			if left := filesIn(t, dir, "ingest"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// A partial is for the same origin, and for content that is not shorter.
func TestPartialsOfOthers(t *testing.T) {
	data := storetest.Bytes("partial", 4*blobstore.SmallBytes)
	half := len(data) / 2
	store := open(t, t.TempDir(), blobstore.Options{})
	leave(t, store, data, half)
	if left := store.Partial(digest.FromBytes(data), "other"); left > 0 {
		t.Errorf("%d bytes of another origin", left)
	}
	for _, c := range []struct {
		origin string
		size   int64
		want   int64
	}{{"other", int64(len(data)), 0}, {testOrigin, int64(half) - 1, 0}, {testOrigin, int64(len(data)), 0 /* taken before */}} {
		want := storetest.Describe(digest.SHA256, data)
		want.Size = c.size
		in, err := store.Continue(want, c.origin)
		if err != nil {
			t.Fatal(err)
		}
		if err := in.Resume(noTick); err != nil || in.Written() != c.want {
			t.Errorf("%s, %d: continued with %d bytes, %v", c.origin, c.size, in.Written(), err)
		}
		in.Abort(nil)
	}
}

// Of what is left the oldest goes first, and the longer of two for one content stays.
func TestPartialsAreBounded(t *testing.T) {
	dir := t.TempDir()
	part := 2 * blobstore.SmallBytes
	store := open(t, dir, blobstore.Options{PartialBytes: int64(2*part + 10)})
	contents := make([][]byte, 3)
	for i := range contents {
		contents[i] = storetest.Bytes(fmt.Sprint(i), 4*blobstore.SmallBytes)
		leave(t, store, contents[i], part)
	}
	for i, want := range []int64{0, int64(part), int64(part)} {
		if left := store.Partial(digest.FromBytes(contents[i]), testOrigin); left != want {
			t.Errorf("%d bytes of content %d are left, want %d", left, i, want)
		}
	}
	longer, shorter := goOn(t, store, contents[0], -1), goOn(t, store, contents[0], -1)
	write(t, longer, contents[0][:part])
	write(t, shorter, contents[0][:part-1])
	longer.Suspend(nil)
	shorter.Suspend(nil)
	if left := store.Partial(digest.FromBytes(contents[0]), testOrigin); left != int64(part) {
		t.Errorf("%d bytes are left, want the longer one's %d", left, part)
	}
	if files := filesIn(t, dir, "ingest"); len(files) != 2 {
		t.Errorf("on disk: %v", files)
	}
}

// Bytes that have changed on the disk are found at the end; then content comes from its first byte, and readers that have
// had none are not disturbed.
func TestSpoiledPartials(t *testing.T) {
	data := storetest.Bytes("partial", 4*blobstore.SmallBytes)
	for name, spoil := range map[string]func([]byte) []byte{
		"a bit":  func(b []byte) []byte { b[1000] ^= 1; return b },
		"longer": func(b []byte) []byte { return append(b, data...) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			store := open(t, dir, blobstore.Options{})
			leave(t, store, data, len(data)/2)
			path := filesIn(t, dir, "ingest")[0]
			left, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, spoil(left), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			in := goOn(t, store, data, int64(len(data)))
			reader := in.Reader(0)
			defer reader.Close()
			if err := finish(in, data); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, data) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			if left := filesIn(t, dir, "ingest"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// Resume that is stopped leaves what there was.
func TestResumeIsStopped(t *testing.T) {
	data := storetest.Bytes("partial", 8*blobstore.SmallBytes)
	part := 4 * blobstore.SmallBytes
	store := open(t, t.TempDir(), blobstore.Options{})
	leave(t, store, data, part)
	in := goOn(t, store, data, int64(len(data)))
	reader := in.Reader(int64(part))
	defer reader.Close()
	if _, err := in.Write(data[:1]); errdef.ReasonOf(err) != errdef.Internal {
		t.Errorf("a Write before Resume: %v", err)
	}
	in = goOn(t, store, data, int64(len(data)))
	if err := in.Resume(noTick); err != nil || in.Written() > 0 {
		t.Errorf("what an ingest has ended wrongly is continued: %d bytes, %v", in.Written(), err)
	}
	leave(t, store, data, part)
	in = goOn(t, store, data, int64(len(data)))
	if err := in.Resume(func() error { return errCut }); !errors.Is(err, errCut) || !errors.Is(in.Err(), errCut) {
		t.Errorf("Resume says %v, the ingest %v", err, in.Err())
	}
	if left := store.Partial(digest.FromBytes(data), testOrigin); left != int64(part) {
		t.Errorf("%d bytes are left, want all %d", left, part)
	}
}

// Partials give way to content that has no room otherwise.
func TestPartialsGiveWay(t *testing.T) {
	data := storetest.Bytes("partial", 4*blobstore.SmallBytes)
	dir := t.TempDir()
	store := open(t, dir, blobstore.Options{})
	leave(t, store, data, len(data)/2)
	store = reopen(t, store, dir, blobstore.Options{FreeBytes: math.MaxInt64})
	in := begin(t, store, storetest.Bytes("other", large), true)
	if _, err := in.Write(make([]byte, large)); !errors.Is(err, errdef.ErrStorageFull) {
		t.Errorf("got %v", err)
	}
	if left := filesIn(t, dir, "ingest"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Kill and power loss at each step of content that is continued leave it absent or whole, and what is left can be
// continued again.
func TestCrashWhileContinuing(t *testing.T) {
	data := storetest.Bytes("crash", 4*blobstore.SmallBytes)
	for _, c := range []crash{{}, {cut: true}, {cut: true, losesNames: true}, {cut: true, zeros: true}} {
		for step, crashed := 1, true; crashed; step++ {
			dir, disk := t.TempDir(), newFragileDisk(errKilled, true)
			store := open(t, dir, blobstore.Options{}.WithDisk(disk))
			leave(t, store, data, len(data)/2)
			disk.failAfter(step)
			err := finish(goOn(t, store, data, int64(len(data))), data)
			crashed = err != nil
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			if c.cut {
				disk.cutPower(t, c.losesNames, c.zeros)
			}
			store = open(t, dir, blobstore.Options{})
			got, err := readAll(store, digest.FromBytes(data))
			if errors.Is(err, errdef.ErrNotFound) && crashed {
				if err := finish(goOn(t, store, data, int64(len(data))), data); err != nil {
					t.Errorf("%+v, step %d: cannot be continued: %v", c, step, err)
				}
				got, err = readAll(store, digest.FromBytes(data))
			}
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%+v, step %d: %d bytes, %v", c, step, len(got), err)
			}
			if left := filesIn(t, dir, "ingest"); len(left) > 0 {
				t.Errorf("%+v, step %d: left behind: %v", c, step, left)
			}
		}
	}
}
