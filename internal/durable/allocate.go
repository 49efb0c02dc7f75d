package durable

import (
	"io"
	"io/fs"
	"os"
)

// Allocate makes a file of size bytes that takes up as much of the disk, whatever is in it. It replaces a file of the name.
func Allocate(path string, size int64, mode fs.FileMode) error {
	return writeFrom(path, mode, func(file *os.File) error { return allocate(file, size) })
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
