package blobstore

import (
	"errors"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Reader reads the ingest from an offset on, as the bytes arrive, at its own pace. It ends with io.EOF after Verify. The
// last byte that has arrived is withheld until then, so what a reader gets is never the whole of unverified content: it
// fails with the ingest's error instead. A reader waits as long as the writer does; Close, from any goroutine, ends the
// wait. An offset beyond the content fails with RANGE_INVALID.
//
// It may be called at any time, also when the ingest has ended, and any number of times. The caller closes each reader.
func (in *Ingest) Reader(offset int64) io.ReadCloser {
	in.mu.Lock()
	gone, err := in.released && in.verified && in.spool().buffer == nil, in.err
	if !gone {
		in.followers++
	}
	in.mu.Unlock()
	if gone {
		return in.store.late(in.want.Digest, offset, err)
	}
	return &follower{ingest: in, offset: offset}
}

// late returns a reader of an ingest whose temporary file is gone: it was renamed, unless there was an error.
func (s *Store) late(dgst digest.Digest, offset int64, err error) io.ReadCloser {
	if err != nil {
		return failed{err}
	}
	content, err := s.Open(dgst)
	if err != nil {
		return failed{err}
	}
	if offset < 0 || offset > content.Size() {
		return failed{errors.Join(errOffset(offset), content.Close())}
	}
	if _, err := content.Seek(offset, io.SeekStart); err != nil {
		return failed{errors.Join(durable.Wrap(err, "cannot read %s", dgst), content.Close())}
	}
	return content
}

// failed is a reader that has nothing to give.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }

func (failed) Close() error { return nil }

func errOffset(offset int64) error {
	return errdef.New(errdef.RangeInvalid, "offset %d is not in the content", offset)
}

// follower is a reader of an ingest.
type follower struct {
	ingest *Ingest
	offset int64 // touched by Read only
	// The ingest's mutex guards the fields below.
	spool  *spool // the one it took its first byte from; nil before
	closed bool
}

// Read implements io.Reader.
func (f *follower) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	arrived, err := f.wait()
	if err != nil {
		return 0, err
	}
	n, err := arrived.readAt(p, f.offset)
	f.offset += int64(n)
	return n, err
}

// wait waits until there is a byte to read at the offset, and returns where it is, or why there will be none.
func (f *follower) wait() (spool, error) {
	in := f.ingest
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		current := in.spool()
		readable := current.written - 1
		if in.verified {
			readable = current.written
		}
		switch {
		case f.closed:
			return spool{}, os.ErrClosed
		case f.spool != nil && f.spool != current:
			return spool{}, in.restarted
		case in.ended && !in.verified:
			return spool{}, in.err
		case f.offset < 0, in.verified && f.offset > readable:
			return spool{}, errOffset(f.offset)
		case f.offset < readable:
			f.spool = current
			arrived := *current
			arrived.written = readable
			return arrived, nil
		case in.verified:
			return spool{}, io.EOF
		}
		in.moved.Wait()
	}
}

// Close implements io.Closer.
func (f *follower) Close() error {
	in := f.ingest
	in.mu.Lock()
	defer in.mu.Unlock()
	if !f.closed {
		f.closed = true
		in.followers--
		in.moved.Broadcast() // a Read may be waiting
		in.release()
	}
	return nil
}
