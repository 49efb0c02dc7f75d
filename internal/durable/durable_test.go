package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

func TestWriteFileReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.json")
	for _, content := range []string{"first", "second, longer", ""} {
		if err := durable.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Fatalf("read %q, %v; want %q", got, err, content)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
}

// A write that fails leaves the old content and no temporary file.
func TestFailedWriteLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "occupied")
	if err := os.MkdirAll(filepath.Join(path, "child"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := durable.WriteFile(path, []byte("x"), 0o600)
	if errdef.ReasonOf(err) != errdef.StorageFailed {
		t.Errorf("got %v, want %s", err, errdef.StorageFailed)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("directory holds %v, %v; want only the directory that was there", entries, err)
	}
	if err := durable.WriteFile(filepath.Join(dir, "missing", "file"), nil, 0o600); errdef.ReasonOf(err) != errdef.StorageFailed {
		t.Errorf("got %v, want %s", err, errdef.StorageFailed)
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		err  error
		want errdef.Reason
	}{
		{&fs.PathError{Op: "write", Path: "f", Err: syscall.ENOSPC}, errdef.StorageFull},
		{syscall.EDQUOT, errdef.StorageFull},
		{syscall.EIO, errdef.StorageFailed},
		{fs.ErrPermission, errdef.StorageFailed},
		{errors.New("anything"), errdef.StorageFailed},
		{errdef.New(errdef.StorageFull, "known already"), errdef.StorageFull},
	} {
		if got := errdef.ReasonOf(durable.Wrap(c.err, "layer")); got != c.want {
			t.Errorf("Wrap(%v) has reason %s, want %s", c.err, got, c.want)
		}
	}
}

func TestMakeDir(t *testing.T) {
	base := t.TempDir()
	deep := filepath.Join(base, "a", "b", "c")
	for range 2 {
		if err := durable.MakeDir(deep, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(deep); err != nil || !info.IsDir() {
		t.Fatalf("%v, %v", info, err)
	}
	if err := os.WriteFile(filepath.Join(base, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := durable.MakeDir(filepath.Join(base, "file", "below"), 0o700); errdef.ReasonOf(err) != errdef.StorageFailed {
		t.Errorf("got %v, want %s", err, errdef.StorageFailed)
	}
}
