package blobstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/blobstore/storetest"
	"github.com/ocistern/ocistern/internal/errdef"
)

// ingest takes content in, in three pieces, through every step there is.
func ingest(store *blobstore.Store, data []byte) error {
	in, err := store.Begin(storetest.Describe(digest.SHA256, data))
	if err != nil {
		return err
	}
	third := len(data) / 3
	for _, piece := range [][]byte{data[:third], data[third : 2*third], data[2*third:]} {
		if _, err := in.Write(piece); err != nil {
			return err
		}
	}
	if err := in.Verify(); err != nil {
		return err
	}
	return in.Persist()
}

// crash is one crash.
type crash struct {
	size              int
	existing          bool // the same content is durable already
	step              int
	cut               bool // power loss, not only the process
	losesNames, zeros bool
}

// run lets the store in dir crash, starts it again and returns what is wrong with it then, and whether the crash came
// before the ingest was done. It leaves an empty store.
func (c crash) run(t *testing.T, dir string, bug func(blobstore.Disk) blobstore.Disk) (wrong error, crashed bool) {
	t.Helper()
	data := storetest.Bytes("crash", c.size)
	disk := newFragileDisk(errKilled, true)
	if c.existing {
		before := open(t, dir, blobstore.Options{}.WithDisk(disk))
		if err := errors.Join(ingest(before, data), before.Close()); err != nil {
			t.Fatal(err)
		}
	}
	store := open(t, dir, blobstore.Options{}.WithDisk(bug(disk)))
	disk.failAfter(c.step)
	persisted := ingest(store, data)
	if persisted != nil && !errors.Is(persisted, errKilled) {
		t.Fatalf("step %d: %v", c.step, persisted)
	}
	if err := store.Close(); err != nil { // gives the lock free, as the end of a process does
		t.Fatal(err)
	}
	if c.cut {
		disk.cutPower(t, c.losesNames, c.zeros)
	}
	restarted := open(t, dir, blobstore.Options{})
	defer func() {
		if err := errors.Join(restarted.Remove(digest.FromBytes(data)), restarted.Close()); err != nil {
			t.Error(err)
		}
	}()
	if left := filesIn(t, dir, "ingest"); len(left) > 0 {
		return fmt.Errorf("temporary files are left: %v", left), persisted != nil
	}
	content, err := restarted.Open(digest.FromBytes(data))
	if errors.Is(err, errdef.ErrNotFound) && persisted != nil && !c.existing {
		return nil, true
	}
	if err != nil {
		return fmt.Errorf("content is lost: %w", err), persisted != nil
	}
	defer content.Close()
	if got, err := io.ReadAll(content); err != nil || !bytes.Equal(got, data) {
		return fmt.Errorf("content has %d other bytes, %w", len(got), err), persisted != nil
	}
	return nil, persisted != nil
}

// everyCrash yields each crash: at each step, in each way.
func everyCrash(run func(crash) (crashed bool)) {
	for _, c := range []crash{
		{}, {cut: true}, {cut: true, losesNames: true}, {cut: true, zeros: true}, {cut: true, losesNames: true, zeros: true},
	} {
		for _, c.size = range []int{3000, blobstore.SmallBytes + 3000} {
			for _, c.existing = range []bool{false, true} {
				for c.step = 1; run(c); {
					c.step++
				}
			}
		}
	}
}

// Guarantee G10: kill and power loss at each step leave content absent or whole; guarantee G2: what Persist has
// acknowledged stays.
func TestCrashAtEachStep(t *testing.T) {
	runs, dir := 0, t.TempDir()
	everyCrash(func(c crash) bool {
		runs++
		err, crashed := c.run(t, dir, func(d blobstore.Disk) blobstore.Disk { return d })
		if err != nil {
			t.Errorf("%+v: %v", c, err)
		}
		return crashed
	})
	if runs < 100 {
		t.Errorf("only %d crashes were tried", runs)
	}
}

// A process that dies between rename and fsync of the directory leaves content that the next one shows. From then on it
// must not disappear, although no Persist has returned.
func TestWhatIsShownAfterARestartStays(t *testing.T) {
	dir, data, disk := t.TempDir(), storetest.Bytes("shown", 3000), newFragileDisk(errKilled, true)
	store := open(t, dir, blobstore.Options{}.WithDisk(disk))
	disk.failAfter(5) // create, write, fsync, rename
	if err := ingest(store, data); !errors.Is(err, errKilled) {
		t.Fatalf("got %v", err)
	}
	disk.failAfter(0)
	store = reopen(t, store, dir, blobstore.Options{}.WithDisk(disk))
	if _, shown := store.Stat(digest.FromBytes(data)); !shown {
		t.Fatal("the file was not renamed: the test has lost its point")
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	disk.cutPower(t, true, true)
	if _, err := readAll(open(t, dir, blobstore.Options{}), digest.FromBytes(data)); err != nil {
		t.Error(err)
	}
}

// The test above must see a store that forgets to fsync.
func TestCrashTestSeesMissingSyncs(t *testing.T) {
	for name, bug := range map[string]func(blobstore.Disk) blobstore.Disk{
		"file":      func(d blobstore.Disk) blobstore.Disk { return noFileSync{d} },
		"directory": func(d blobstore.Disk) blobstore.Disk { return noDirSync{d} },
	} {
		seen, dir := false, t.TempDir()
		everyCrash(func(c crash) bool {
			if seen {
				return false
			}
			err, crashed := c.run(t, dir, bug)
			seen = err != nil
			return crashed
		})
		if !seen {
			t.Errorf("a missing fsync of the %s was not seen", name)
		}
	}
}

// A step that fails ends the ingest with a typed error, leaves no file and no open descriptor, and the next ingest
// succeeds.
func TestFailureOfEachStep(t *testing.T) {
	for cause, reason := range map[error]errdef.Reason{
		syscall.ENOSPC: errdef.StorageFull, syscall.EDQUOT: errdef.StorageFull, syscall.EIO: errdef.StorageFailed,
	} {
		for _, size := range []int{3000, blobstore.SmallBytes + 3000} {
			data := storetest.Bytes("failure", size)
			for step, failed := 1, true; failed; step++ {
				dir, disk := t.TempDir(), newFragileDisk(cause, false)
				store := open(t, dir, blobstore.Options{}.WithDisk(disk))
				disk.failAfter(step)
				err := ingest(store, data)
				failed = err != nil
				if failed && errdef.ReasonOf(err) != reason {
					t.Errorf("step %d: got %v, want %s", step, err, reason)
				}
				left := filesIn(t, dir, "ingest", "blobs")
				if _, present := store.Stat(digest.FromBytes(data)); len(left) > 0 && !present {
					t.Errorf("step %d: left on disk: %v", step, left)
				}
				if disk.open != 0 {
					t.Errorf("step %d: %d files are still open", step, disk.open)
				}
				disk.failAfter(0)
				storetest.Put(t, store, storetest.Describe(digest.SHA256, data), data)
			}
		}
	}
}
