package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/testdisk"
)

// fullDisk has room only where a file is not any more.
type fullDisk struct {
	raft.LogStore
	reserve string
	stored  int
}

func (d *fullDisk) full() error {
	if _, err := os.Stat(d.reserve); err == nil {
		return &os.PathError{Op: "write", Path: "raft.db", Err: syscall.ENOSPC}
	}
	return nil
}

func (d *fullDisk) StoreLogs(logs []*raft.Log) error {
	err := d.full()
	if err == nil {
		d.stored += len(logs)
	}
	return err
}

func (d *fullDisk) DeleteRange(first, last uint64) error {
	if err := d.full(); err != nil {
		return err
	}
	return d.LogStore.DeleteRange(first, last)
}

// keep opens a reserve and checks that it has so many bytes, in blocks of the disk.
func keep(t *testing.T, dir string, size, want int64) *reserve {
	t.Helper()
	kept, err := openReserve(dir, size, testLogger("reserve"))
	must(t, err)
	var blocks syscall.Stat_t
	if err := syscall.Stat(kept.path, &blocks); want > 0 {
		must(t, err)
	}
	if kept.kept.Load() != want || blocks.Size != want || blocks.Blocks*512 < want {
		t.Fatalf("%d bytes are kept, in %d blocks of a file of %d, want %d", kept.kept.Load(), blocks.Blocks, blocks.Size, want)
	}
	return kept
}

// A log that finds the disk full goes on with the reserve; without one the node ends. The reserve comes back when there is
// room, and is really on the disk.
func TestReserve(t *testing.T) {
	dir := t.TempDir()
	const size = 1 << 20
	must(t, os.WriteFile(filepath.Join(dir, ".reserve.123"), make([]byte, size), 0o600)) // of a crash
	kept := keep(t, dir, size, size)
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left on the disk: %v, %v", left, err)
	}
	disk := &fullDisk{reserve: kept.path}
	var told error
	logs := watchedLogs{disk, diskWatch{limit: patience, reserve: kept, fatal: func(err error) { told = err }}}
	if err := logs.StoreLogs([]*raft.Log{{Index: 1}}); err != nil || told != nil || disk.stored != 1 || kept.kept.Load() != 0 {
		t.Errorf("%v, told %v, %d stored, %d kept", err, told, disk.stored, kept.kept.Load())
	}
	kept.remake()
	if kept.kept.Load() != size {
		t.Error("not made again")
	}
	must(t, logs.StoreLogs([]*raft.Log{{Index: 2}}))
	must(t, os.WriteFile(kept.path, nil, 0o600)) // full, and nothing in reserve
	err := logs.StoreLogs([]*raft.Log{{Index: 3}})
	if !errors.Is(err, errdef.ErrStorageFull) || !errors.Is(told, errdef.ErrStorageFull) {
		t.Errorf("without a reserve: %v, told %v", err, told)
	}
	keep(t, dir, 0, 0)
	if _, err := os.Stat(kept.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("turned off: %v", err)
	}
}

// Of writes that find the disk full at the same time one gives the reserve up, and all are repeated.
func TestReserveServesAllWhoMeetAFullDisk(t *testing.T) {
	const writers = 4
	kept := keep(t, t.TempDir(), 1<<20, 1<<20)
	var met, ended sync.WaitGroup
	met.Add(writers)
	for range writers {
		ended.Go(func() {
			tries := 0
			err := kept.rescue(func() error {
				if tries++; tries > 1 {
					return nil
				}
				met.Done()
				met.Wait()
				return syscall.ENOSPC
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	if ended.Wait(); kept.given.Load() != 1 {
		t.Errorf("given up %d times", kept.given.Load())
	}
}

// A log that conflicts with a snapshot is discarded on a full disk, too.
func TestConflictingLogIsDiscardedFromAFullDisk(t *testing.T) {
	t.Parallel()
	pair := newConflict(t)
	kept := keep(t, t.TempDir(), 1<<20, 1<<20)
	pair.disk.Logs = &fullDisk{LogStore: pair.disk.Logs, reserve: kept.path}
	pair.snapshot(pair.disk, conflictIndex, 2) // as if it had been received just before a crash
	_, err := watch(pair.disk, diskWatch{limit: patience, reserve: kept, fatal: func(err error) { t.Error(err) }})
	must(t, err)
	if last, err := pair.disk.Logs.LastIndex(); err != nil || last != 0 || kept.kept.Load() != 0 {
		t.Errorf("the last entry is %d, %d bytes are kept, %v", last, kept.kept.Load(), err)
	}
}

// onSmallDisks runs a test on each kind of small disk.
func onSmallDisks(t *testing.T, test func(t *testing.T, disk string)) {
	for _, kind := range testdisk.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, testdisk.Mount(t, kind, 32<<20))
		})
	}
}

// A reserve is made smaller on a disk that is full, and what it is not is free. It does not grow there, and stays what it was.
func TestReserveChangesOnAFullDisk(t *testing.T) {
	t.Parallel()
	onSmallDisks(t, func(t *testing.T, disk string) {
		keep(t, disk, 4<<20, 4<<20)
		testdisk.Fill(t, filepath.Join(disk, "filler"))
		keep(t, disk, 5<<20, 4<<20)
		keep(t, disk, 1<<20, 1<<20)
		testdisk.Fill(t, filepath.Join(disk, "another"))
		if info, err := os.Stat(filepath.Join(disk, "another")); err != nil || info.Size() < 2<<20 {
			t.Errorf("there was room for %d bytes, %v", info.Size(), err)
		}
		kept := keep(t, disk, 1<<20, 1<<20)
		must(t, kept.rescue(func() error { return os.WriteFile(filepath.Join(disk, "entry"), make([]byte, 1<<19), 0o600) }))
		if kept.given.Load() != 1 {
			t.Error("the disk was not full")
		}
	})
}

// A node starts on a full disk, with nothing but its reserve: what it makes there is repeated, and what is damaged set aside.
func TestStartOnAFullDisk(t *testing.T) {
	t.Parallel()
	onSmallDisks(t, func(t *testing.T, disk string) {
		for _, c := range []struct {
			name    string
			damaged bool
			room    int64
		}{{"new", false, 0}, {"half", false, 8192}, {"damaged", true, 0}} { // half of a new log finds room
			cfg := Config{
				DataDir: filepath.Join(disk, c.name), ReserveBytes: 4 << 20, Timings: Timings{}.complete(),
				Fatal: func(err error) { t.Error(err) },
			}
			must(t, os.MkdirAll(filepath.Join(cfg.DataDir, raftDir), 0o700))
			keep(t, cfg.DataDir, cfg.ReserveBytes, cfg.ReserveBytes)
			if c.damaged {
				must(t, os.WriteFile(filepath.Join(cfg.DataDir, raftDir, "raft.db"), make([]byte, 100), 0o600))
			}
			filler := filepath.Join(disk, "filler")
			testdisk.Fill(t, filler)
			full, err := os.Stat(filler)
			must(t, err)
			must(t, os.Truncate(filler, full.Size()-c.room))
			store, id, err := openState(cfg, testLogger("start"))
			must(t, err)
			if set, err := filepath.Glob(filepath.Join(cfg.DataDir, quarantineDir, "*")); err != nil || c.damaged != (len(set) > 0) {
				t.Errorf("%s: in quarantine are %v, %v", c.name, set, err)
			}
			if id.current().ID == "" || store.reserve.kept.Load() != 0 {
				t.Errorf("node %q, %d bytes kept", id.current().ID, store.reserve.kept.Load())
			}
			must(t, errors.Join(store.close(), os.Remove(filler)))
		}
	})
}

// On a real disk that is full to the last byte, a node goes on writing and takes snapshots, says so, and has its reserve again
// when there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	onSmallDisks(t, func(t *testing.T, disk string) {
		n, ended := fillsUp(t, disk, 4<<20)
		testdisk.Fill(t, filepath.Join(disk, "filler"))
		n.write("before")
		n.fleet.eventually("a snapshot is taken", func() error { return n.cluster.raft.Snapshot().Error() })
		if !n.cluster.ReserveGivenUp() {
			t.Error("the disk was never full")
		}
		for i := range 50 {
			_, err := n.cluster.Apply(t.Context(), push(fmt.Sprintf("tag-%d", i)))
			must(t, err)
		}
		must(t, os.Remove(filepath.Join(disk, "filler")))
		n.cluster.storage.reserve.remake()
		if n.cluster.ReserveGivenUp() {
			t.Error("there is room, and no reserve")
		}
		n.write("after")
		if n.crash(); len(ended) > 0 {
			t.Errorf("the node ended: %v", <-ended)
		}
	})
}

// Without a reserve it ends.
func TestFullDiskWithoutReserve(t *testing.T) {
	t.Parallel()
	onSmallDisks(t, func(t *testing.T, disk string) {
		n, ended := fillsUp(t, disk, 0)
		testdisk.Fill(t, filepath.Join(disk, "filler"))
		writes := 0
		for ; writes < 400 && len(ended) == 0; writes++ {
			if _, err := n.cluster.Apply(t.Context(), push(fmt.Sprintf("tag-%d", writes))); err != nil {
				break
			}
		}
		if writes == 400 {
			t.Error("the disk was never full")
		}
		n.crash()
	})
}

// fillsUp starts a node on a disk, and collects what ends it.
func fillsUp(t *testing.T, disk string, reserveBytes int64) (*node, chan error) {
	f := newFleet(t)
	n := f.prepare(1, 1)[0]
	ended := make(chan error, 1000)
	n.config.DataDir, n.config.ReserveBytes = filepath.Join(disk, "data"), reserveBytes
	n.config.Fatal = func(err error) { ended <- err }
	f.start(n)
	if n.cluster.ReserveGivenUp() {
		t.Fatal("there was no room from the start")
	}
	return n, ended
}
