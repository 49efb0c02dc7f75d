// Package secretfile reads small files that somebody else replaces while the node runs: credentials, keys and
// certificates. It knows nothing of what is in them.
//
// Files are replaced by rename, in place, or by moving a symbolic link above them, as Kubernetes does with mounted
// secrets. All three are noticed by looking at the file that the path leads to at the moment.
package secretfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
)

// MaxBytes is how large a file may be.
const MaxBytes = 1 << 20

// Errors of Read that do not come from the operating system.
var (
	ErrNotRegular = errors.New("not a regular file")
	ErrTooLarge   = errors.New("larger than 1 MiB")
)

// Read returns what a file has. Its errors name the path at most, never the content.
func Read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // to open a pipe would block
		return nil, &fs.PathError{Op: "read", Path: path, Err: ErrNotRegular}
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, MaxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(content) > MaxBytes {
		return nil, &fs.PathError{Op: "read", Path: path, Err: ErrTooLarge}
	}
	return content, nil
}

// Watch tells whether any of some files was replaced. It is safe for concurrent use, and has no goroutine: it looks
// when it is asked.
type Watch struct {
	paths []string

	// mu guards seen and revision.
	mu       sync.Mutex
	seen     []fs.FileInfo // by path; nil for a file that cannot be looked at
	revision uint64
}

// NewWatch returns a Watch of files, which need not exist.
func NewWatch(paths ...string) *Watch {
	return &Watch{paths: paths, seen: make([]fs.FileInfo, len(paths))}
}

// Revision returns a number that differs from the one before when a file was replaced, appeared or went.
func (w *Watch) Revision() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	changed := false
	for n, path := range w.paths {
		info, err := os.Stat(path)
		if err != nil {
			info = nil
		}
		changed = changed || !same(w.seen[n], info)
		w.seen[n] = info
	}
	if changed {
		w.revision++
	}
	return w.revision
}

func same(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
