package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// fullDisk has room only where a file is not any more.
type fullDisk struct {
	raft.LogStore
	reserve string
	stored  int
}

func (d *fullDisk) StoreLogs(logs []*raft.Log) error {
	if _, err := os.Stat(d.reserve); err == nil {
		return &os.PathError{Op: "write", Path: "raft.db", Err: syscall.ENOSPC}
	}
	d.stored += len(logs)
	return nil
}

// A log that finds the disk full goes on with the reserve; without one the node ends. The reserve comes back when there is
// room, and is really on the disk.
func TestReserve(t *testing.T) {
	dir := t.TempDir()
	const size = 1 << 20
	kept, err := openReserve(dir, size, testLogger("reserve"))
	must(t, err)
	var blocks syscall.Stat_t
	must(t, syscall.Stat(kept.path, &blocks))
	if !kept.held.Load() || blocks.Blocks*512 < size {
		t.Fatalf("held %t, %d blocks", kept.held.Load(), blocks.Blocks)
	}
	disk := &fullDisk{reserve: kept.path}
	var told error
	logs := watchedLogs{disk, diskWatch{limit: patience, reserve: kept, fatal: func(err error) { told = err }}}
	if err := logs.StoreLogs([]*raft.Log{{Index: 1}}); err != nil || told != nil || disk.stored != 1 || kept.held.Load() {
		t.Errorf("%v, told %v, %d stored, held %t", err, told, disk.stored, kept.held.Load())
	}
	kept.remake()
	if !kept.held.Load() {
		t.Error("not made again")
	}
	must(t, logs.StoreLogs([]*raft.Log{{Index: 2}}))
	must(t, os.WriteFile(kept.path, nil, 0o600)) // full, and nothing in reserve
	err = logs.StoreLogs([]*raft.Log{{Index: 3}})
	if !errors.Is(err, errdef.ErrStorageFull) || !errors.Is(told, errdef.ErrStorageFull) {
		t.Errorf("without a reserve: %v, told %v", err, told)
	}
	none, err := openReserve(dir, 0, testLogger("reserve"))
	must(t, err)
	if _, err := os.Stat(none.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("turned off: %v", err)
	}
}

// tinyDisk mounts a filesystem of some bytes.
func tinyDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("a small filesystem cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// On a real disk that is full to the last byte, a node goes on writing, says so, and has its reserve again when there is
// room. Without a reserve it ends.
func TestFullDisk(t *testing.T) {
	for _, reserveBytes := range []int64{4 << 20, 0} {
		t.Run(fmt.Sprint(reserveBytes), func(t *testing.T) {
			f := newFleet(t)
			n := f.prepare(1, 1)[0]
			dir := tinyDisk(t, 24<<20)
			n.config.DataDir = filepath.Join(dir, "data")
			n.config.ReserveBytes = reserveBytes
			ended := make(chan error, 1000)
			n.config.Fatal = func(err error) { ended <- err }
			f.start(n)
			if n.cluster.ReserveGivenUp() {
				t.Fatal("there was no room from the start")
			}
			filler := filepath.Join(dir, "filler")
			fillUp(t, filler)
			writes := 0
			for ; writes < 400 && len(ended) == 0; writes++ {
				if _, err := n.cluster.Apply(t.Context(), push(fmt.Sprintf("tag-%d", writes))); err != nil {
					break
				}
			}
			if survived := writes == 400 && len(ended) == 0; survived != (reserveBytes > 0) {
				t.Fatalf("%d writes with a reserve of %d bytes, ended %d times", writes, reserveBytes, len(ended))
			}
			if reserveBytes == 0 {
				n.crash()
				return
			}
			if !n.cluster.ReserveGivenUp() {
				t.Error("the disk was never full")
			}
			must(t, os.Remove(filler))
			n.cluster.storage.reserve.remake()
			if n.cluster.ReserveGivenUp() {
				t.Error("there is room, and no reserve")
			}
			n.write("after")
			n.crash()
		})
	}
}

// fillUp writes until there is no room.
func fillUp(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	must(t, err)
	defer func() { must(t, file.Close()) }()
	for block := make([]byte, 4096); ; {
		if _, err := file.Write(block); err != nil {
			if errdef.ReasonOf(durable.Wrap(err, "filling")) != errdef.StorageFull {
				t.Fatal(err)
			}
			return
		}
	}
}
