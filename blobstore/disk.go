package blobstore

import (
	"io"
	"os"

	"github.com/ocistern/ocistern/internal/durable"
)

// disk is the part of the filesystem that changes it: the steps at which a crash, a full or a failing disk can strike.
// Tests put failpoints and simulated power loss here.
type disk interface {
	// Create makes a new file for reading and writing.
	Create(path string) (file, error)
	// Append opens a file for reading and for writing at its end.
	Append(path string) (file, error)
	Rename(from, to string) error
	Remove(path string) error
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
}

// file is a file that is being written.
type file interface {
	io.WriteCloser
	io.ReaderAt
	Sync() error
}

// osDisk is the disk of the operating system.
type osDisk struct{}

const (
	fileMode = 0o640
	dirMode  = 0o750
)

func (osDisk) Create(path string) (file, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
}

func (osDisk) Append(path string) (file, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_APPEND, fileMode)
}

func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }

func (osDisk) Remove(path string) error { return os.Remove(path) }

func (osDisk) SyncDir(dir string) error { return durable.SyncDir(dir) }
