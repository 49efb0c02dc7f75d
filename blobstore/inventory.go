package blobstore

import (
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// Blob is content that the store has on disk.
type Blob struct {
	Digest digest.Digest
	Size   int64 // bytes

	written time.Time // as the file has it
}

// Usage tells how much a store holds.
type Usage struct {
	Blobs       int64 // on disk, quarantine not counted
	Bytes       int64 // of these
	LargeBytes  int64 // of those that are larger than SmallBytes
	MemoryBytes int64 // in the memory tier
}

// count adds blobs of a size, or takes some away.
func (u *Usage) count(size, blobs int64) {
	u.Blobs += blobs
	u.Bytes += blobs * size
	if size > SmallBytes {
		u.LargeBytes += blobs * size
	}
}

// Usage returns the current usage in O(1).
func (s *Store) Usage() Usage {
	s.placing.Lock()
	usage := s.usage
	s.placing.Unlock()
	usage.MemoryBytes = s.memory.size()
	return usage
}

// Stat tells whether content is durable on disk, and its size in bytes. It looks at the file's name, not at its bytes.
func (s *Store) Stat(dgst digest.Digest) (size int64, ok bool) {
	if _, err := reference.ParseDigest(dgst.String()); err != nil {
		return 0, false
	}
	info, err := os.Lstat(s.path(dgst))
	if err != nil || !info.Mode().IsRegular() {
		return 0, false
	}
	return info.Size(), true
}

// All yields what is on disk, in no order. Content that comes or goes meanwhile may be missed.
func (s *Store) All() iter.Seq2[Blob, error] {
	return func(yield func(Blob, error) bool) {
		for _, algorithm := range algorithms() {
			for blob, err := range s.list(algorithm) {
				if !yield(blob, err) {
					return
				}
			}
		}
	}
}

// Remove forgets content. Whoever has it open goes on reading. Content that is not there is no error. The file may come
// back after power loss, which costs space and nothing else: it is verified before it is served.
func (s *Store) Remove(dgst digest.Digest) error {
	if _, err := reference.ParseDigest(dgst.String()); err != nil {
		return err
	}
	s.placing.Lock()
	defer s.placing.Unlock()
	if s.closed {
		return s.errClosed()
	}
	size, known := s.Stat(dgst)
	if err := s.disk.Remove(s.path(dgst)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return durable.Wrap(err, "cannot remove %s", dgst)
	}
	s.memory.remove(dgst)
	s.setVerified(dgst, false)
	if known {
		s.usage.count(size, -1)
	}
	return nil
}

// place moves a whole, fsynced file to where content lies. It replaces what is there: the new bytes are verified.
func (s *Store) place(temporary string, blob Blob) error {
	s.placing.Lock()
	defer s.placing.Unlock()
	if s.closed {
		return s.errClosed()
	}
	before, known := s.Stat(blob.Digest)
	if err := s.disk.Rename(temporary, s.path(blob.Digest)); err != nil {
		return err
	}
	if known {
		s.usage.count(before, -1)
	}
	s.usage.count(blob.Size, 1)
	if blob.Size > SmallBytes {
		s.setVerified(blob.Digest, true)
	}
	return nil
}

// quarantine moves corrupt content away. It does nothing and returns false when checked is no longer the file that lies
// there: verified content has replaced it, or it was removed. The move is not fsynced: content that comes back after
// power loss is found corrupt again.
func (s *Store) quarantine(dgst digest.Digest, checked fs.FileInfo) (bool, error) {
	s.placing.Lock()
	defer s.placing.Unlock()
	if s.closed {
		return false, s.errClosed()
	}
	path := s.path(dgst)
	lying, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(lying, checked) {
		return false, nil
	}
	to := filepath.Join(s.dir, quarantineDir, dgst.Algorithm().String()+"-"+dgst.Encoded())
	if err == nil {
		err = s.disk.Rename(path, to)
	}
	if err != nil {
		return false, durable.Wrap(err, "cannot quarantine %s", dgst)
	}
	s.usage.count(lying.Size(), -1)
	s.logger.Error("content is corrupt and was moved to quarantine", "digest", dgst, "file", to)
	return true, nil
}

func (s *Store) errClosed() error {
	return errdef.New(errdef.Unavailable, "the store in %s is closed", s.dir)
}

// isVerified tells whether content needs no verification. It counts as a use.
func (s *Store) isVerified(dgst digest.Digest) bool {
	s.checking.RLock()
	defer s.checking.RUnlock()
	used, ok := s.verified[dgst]
	if ok {
		used.Store(time.Now().UnixNano())
	}
	return ok
}

func (s *Store) setVerified(dgst digest.Digest, verified bool) {
	s.checking.Lock()
	defer s.checking.Unlock()
	if !verified {
		delete(s.verified, dgst)
		return
	}
	used := &atomic.Int64{}
	used.Store(time.Now().UnixNano())
	s.verified[dgst] = used
}
