package blobstore

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/ocistern/ocistern/internal/durable"
)

// spool holds the bytes of an ingest as they arrive: in memory while they are small, else in a temporary file. Bytes
// before written never change, so a copy of the struct, taken under the ingest's mutex, can be read without it.
type spool struct {
	buffer  []byte // the content, unless it is nil: then it is in file
	file    file
	path    string // of file
	written int64
	left    int64 // bytes of a partial, behind the written ones in file, that Resume has not taken over yet
	granted int64 // up to here room was found on the disk
}

// newSpool returns a spool for content of an announced size, negative when it is not known.
func newSpool(size int64) *spool {
	if size < 0 || size > SmallBytes {
		return &spool{}
	}
	return &spool{buffer: make([]byte, 0, size)}
}

// readAt reads bytes that were written before s was copied; there must be some at the offset.
func (s spool) readAt(p []byte, offset int64) (int, error) {
	if s.buffer != nil {
		return copy(p, s.buffer[offset:s.written]), nil
	}
	n, err := s.file.ReadAt(p[:min(int64(len(p)), s.written-offset)], offset)
	if err != nil && n == 0 {
		return 0, durable.Wrap(err, "cannot read content that is arriving")
	}
	return n, nil
}

// createTemporary makes a file in ingest/; one with a key may be left as a partial.
func (s *Store) createTemporary(key *partialKey) (file, string, error) {
	path := s.temporaryPath(key)
	created, err := s.disk.Create(path)
	return created, path, err
}

// temporaryPath returns a name for a new file in ingest/. It is random, so that a store that is closed, but has ingests
// left to abort, does not remove the files of its successor.
func (s *Store) temporaryPath(key *partialKey) string {
	name := rand.Text()
	if key != nil {
		name = key.prefix() + name
	}
	return filepath.Join(s.dir, ingestDir, name)
}

// removeTemporary removes a file from ingest/. One that cannot be removed is removed at the next start.
func (s *Store) removeTemporary(path string) {
	if err := s.disk.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.logger.Warn("cannot remove a temporary file", "file", path, "error", err)
	}
}
