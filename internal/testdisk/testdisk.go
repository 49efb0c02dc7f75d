// Package testdisk mounts small filesystems, for tests that fill a real disk to the last byte. It needs root, and is for tests
// only.
package testdisk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Kinds are the filesystems that there are. tmpfs is in memory; ext4 is in a file, mounted as a loop device, and has what makes
// a full disk hard: blocks that are found only when bytes are written out, and that come back only with the journal.
var Kinds = []string{"tmpfs", "ext4"}

// Mount mounts a new filesystem of size bytes, 16 MiB at least, until the test ends, and returns its directory. Where that
// cannot be, the test is skipped and says why, unless OCISTERN_REQUIRE names the kind (see .ci/run).
func Mount(t testing.TB, kind string, size int64) string {
	t.Helper()
	dir := t.TempDir()
	var err error
	if kind == "tmpfs" {
		err = syscall.Mount(kind, dir, kind, 0, fmt.Sprintf("size=%d", size))
	} else {
		err = mountImage(filepath.Join(t.TempDir(), "image"), dir, kind, size)
	}
	if err != nil {
		if slices.Contains(strings.Split(os.Getenv("OCISTERN_REQUIRE"), ","), kind) {
			t.Fatalf("OCISTERN_REQUIRE demands what cannot run: %v", err)
		}
		t.Skipf("a small %s cannot be mounted here: %v", kind, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func mountImage(image, dir, kind string, size int64) error {
	file, err := os.Create(image)
	if err != nil {
		return err
	}
	if err := file.Truncate(size); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	// No blocks are kept for root: the tests run as root, and would fill them.
	for _, command := range [][]string{
		{"mkfs." + kind, "-q", "-m", "0", image}, {"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", command[0], err, out)
		}
	}
	return nil
}

// Fill makes a file that takes up what is left of the disk it lies on.
func Fill(t testing.TB, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for block := make([]byte, 1<<20); len(block) > 0; { // ever smaller blocks, down to single bytes
		if _, err := file.Write(block); err == nil {
			continue
		} else if !isFull(err) {
			t.Fatal(err)
		}
		block = block[:len(block)/2]
	}
	if err := file.Sync(); err != nil && !isFull(err) {
		t.Fatal(err)
	}
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) }
