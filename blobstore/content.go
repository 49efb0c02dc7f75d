package blobstore

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// Content is verified content, open for reading from its first byte. Like a file, it has one position, so one goroutine
// may Read and Seek at a time; ReadAt is safe for any number. The caller closes it.
type Content struct {
	source
	size int64
}

// source is a file, or bytes in memory.
type source interface {
	io.ReadSeekCloser
	io.ReaderAt
}

// inMemory makes a source of bytes. Readers share them, so they must never change.
type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

func contentOf(data []byte) *Content {
	return &Content{source: inMemory{bytes.NewReader(data)}, size: int64(len(data))}
}

// Size returns the size of the whole content in bytes.
func (c *Content) Size() int64 { return c.size }

// WriteTo implements io.WriterTo from the current position on: content on disk goes to a TCP connection by sendfile(2),
// content in memory by one Write.
func (c *Content) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, c.source) }

// SyscallConn implements syscall.Conn for content on disk, so that package net can use sendfile(2) also for a part of it
// (io.CopyN). For content in memory it fails, and package net copies.
func (c *Content) SyscallConn() (syscall.RawConn, error) {
	if opened, ok := c.source.(*os.File); ok {
		return opened.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// Open opens content, from memory or else from disk. It fails with NOT_FOUND; with CONTENT_CORRUPT when the file's bytes
// do not match the digest: the file is then in quarantine, and the next Open says NOT_FOUND; or with STORAGE_FAILED.
//
// The first open of large content since the start reads all of it to verify it, once for all who wait; later ones do
// not. Small content is verified each time it is read from disk into memory.
func (s *Store) Open(dgst digest.Digest) (*Content, error) {
	if data, ok := s.memory.get(dgst); ok {
		return contentOf(data), nil
	}
	if _, err := reference.ParseDigest(dgst.String()); err != nil {
		return nil, err
	}
	if !s.isVerified(dgst) {
		data, err, _ := s.checks.Do(dgst.String(), func() (any, error) { return s.check(dgst) })
		if err != nil {
			return nil, err
		}
		if small := data.([]byte); small != nil {
			return contentOf(small), nil
		}
	}
	return s.openFile(dgst)
}

// openFile opens content that needs no verification.
func (s *Store) openFile(dgst digest.Digest) (*Content, error) {
	opened, info, err := s.openPath(dgst)
	if err != nil {
		return nil, err
	}
	return &Content{source: opened, size: info.Size()}, nil
}

func (s *Store) openPath(dgst digest.Digest) (*os.File, fs.FileInfo, error) {
	opened, err := os.Open(s.path(dgst))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, errdef.New(errdef.NotFound, "content %s is not on this node", dgst)
	}
	if err != nil {
		return nil, nil, durable.Wrap(err, "cannot open %s", dgst)
	}
	info, err := opened.Stat()
	if err != nil {
		return nil, nil, errors.Join(durable.Wrap(err, "cannot open %s", dgst), opened.Close())
	}
	return opened, info, nil
}

// check verifies content on disk. It returns the bytes of small content, which it puts into the memory tier, and nil
// for large content.
func (s *Store) check(dgst digest.Digest) ([]byte, error) {
	for {
		opened, info, err := s.openPath(dgst)
		if err != nil {
			return nil, err
		}
		data, matches, err := s.verifyFile(dgst, opened, info.Size())
		if err := errors.Join(err, opened.Close()); err != nil {
			return nil, durable.Wrap(err, "cannot read %s", dgst)
		}
		if matches {
			return data, nil
		}
		moved, err := s.quarantine(dgst, info)
		if err != nil {
			return nil, errdef.Wrap(errdef.ContentCorrupt, err, "content %s does not match its digest", dgst)
		}
		if moved {
			s.lost(dgst)
			return nil, errdef.New(errdef.ContentCorrupt, "content %s does not match its digest and is in quarantine", dgst).
				WithRemedy("fetch it again from another holder or the upstream")
		}
		// Verified content has replaced the file meanwhile, or it was removed: look again.
	}
}

func (s *Store) verifyFile(dgst digest.Digest, opened *os.File, size int64) (data []byte, matches bool, err error) {
	verifier := dgst.Verifier()
	if size > SmallBytes {
		if _, err := io.Copy(verifier, opened); err != nil || !verifier.Verified() {
			return nil, false, err
		}
		s.setVerified(dgst, true)
		return nil, true, nil
	}
	data = make([]byte, size) // not nil, even when empty
	if _, err := io.ReadFull(io.TeeReader(opened, verifier), data); err != nil || !verifier.Verified() {
		return nil, false, err
	}
	s.memory.put(dgst, data)
	return data, true, nil
}
