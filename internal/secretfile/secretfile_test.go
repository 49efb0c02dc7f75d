package secretfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	write := func(name string, size int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		path string
		want error
	}{
		{write("small", 7), nil},
		{write("largest", MaxBytes), nil},
		{write("too large", MaxBytes+1), ErrTooLarge},
		{pipe, ErrNotRegular},
		{dir, ErrNotRegular},
		{filepath.Join(dir, "missing"), fs.ErrNotExist},
	} {
		if _, err := Read(c.path); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v", c.path, err)
		}
	}
}

// Every way in which files are replaced is noticed, once.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	write := func(path, content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	w := NewWatch(path, filepath.Join(dir, "other"))
	last := w.Revision()
	for _, step := range []struct {
		name   string
		change func()
	}{
		{"appears", func() { write(path, "one") }},
		{"other size", func() { write(path, "three") }},
		{"other time", func() { check(os.Chtimes(path, time.Time{}, time.Unix(1, 0))) }},
		{"renamed over, same size and time", func() {
			write(path+".new", "seven")
			check(os.Chtimes(path+".new", time.Time{}, time.Unix(1, 0)))
			check(os.Rename(path+".new", path))
		}},
		{"goes", func() { check(os.Remove(path)) }},
		{"link", func() {
			for _, version := range []string{"v1", "v2"} {
				check(os.Mkdir(filepath.Join(dir, version), 0o700))
				write(filepath.Join(dir, version, "file"), "same")
				check(os.Chtimes(filepath.Join(dir, version, "file"), time.Time{}, time.Unix(1, 0)))
			}
			check(os.Symlink("v1", filepath.Join(dir, "..data")))
			check(os.Symlink(filepath.Join("..data", "file"), path))
		}},
		{"a link above is moved", func() { // as Kubernetes replaces mounted secrets
			check(os.Symlink("v2", filepath.Join(dir, "..data.new")))
			check(os.Rename(filepath.Join(dir, "..data.new"), filepath.Join(dir, "..data")))
		}},
	} {
		step.change()
		now := w.Revision()
		if now == last || now != w.Revision() {
			t.Errorf("%s: from %d to %d and %d", step.name, last, now, w.Revision())
		}
		last = now
	}
}
