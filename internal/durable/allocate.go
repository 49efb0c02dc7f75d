package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Allocate makes a file of size bytes that takes up as much of the disk, whatever is in it. It replaces a file of the name.
func Allocate(path string, size int64, mode fs.FileMode) error {
	return writeFrom(path, mode, func(file *os.File) error { return allocate(file, size) })
}

// Tidy removes what writes of a file that a crash interrupted have left beside it. Nobody may be writing that file.
func Tidy(path string) error {
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), temporaryPattern(path)))
	for _, name := range left {
		err = errors.Join(err, ignoreNotExist(os.Remove(name)))
	}
	if err != nil {
		return Wrap(err, "cannot tidy up beside %s", path)
	}
	return nil
}

// fill writes as many zeros.
func fill(w io.Writer, size int64) error {
	_, err := io.CopyN(w, zeros{}, size)
	return err
}

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
