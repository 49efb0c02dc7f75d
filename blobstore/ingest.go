package blobstore

import (
	"hash"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// Ingest is content on its way in: Write, then Verify, then Persist, all by one goroutine, the writer. Abort, Reader and
// Descriptor are for any goroutine. An error of Write, Verify or Persist ends the ingest, and nothing of it is left on
// disk. The writer ends every ingest with Persist, Abort or Suspend.
type Ingest struct {
	store *Store
	sum   hash.Hash   // of the bytes of the current spool; touched by the writer only
	key   *partialKey // under which it may leave a partial; nil after Begin

	// mu guards the fields below, those of the followers, and the spools: the writer alone changes a spool, holding mu.
	mu        sync.Mutex
	moved     sync.Cond // on mu: bytes have arrived, or the state has changed
	want      ocispec.Descriptor
	spools    []*spool // the last one is being filled; earlier ones were given up by Restart
	restarted error    // why
	verified  bool
	ended     bool
	err       error // why it ended without being persisted
	pinned    *entry
	followers int  // readers that are not closed
	released  bool // the files of the spools are closed: it has ended, and nobody reads them
}

// Begin starts to take in content. The digest of want must be of sha256 or sha512; a negative size means that it is not
// known. Any number of ingests of the same content may go on at once, and each succeeds by itself.
func (s *Store) Begin(want ocispec.Descriptor) (*Ingest, error) {
	if _, err := reference.ParseDigest(want.Digest.String()); err != nil {
		return nil, err
	}
	in := &Ingest{store: s, sum: want.Digest.Algorithm().Hash(), want: want, spools: []*spool{newSpool(want.Size)}}
	in.moved.L = &in.mu
	return in, nil
}

// Descriptor returns what is taken in. Its size is negative as long as it is not known: after Verify it is.
func (in *Ingest) Descriptor() ocispec.Descriptor {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.want
}

// Written returns how many bytes have arrived: the offset at which another source can go on.
func (in *Ingest) Written() int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.spool().written
}

// Err returns why the ingest ended without being persisted; nil as long as it goes on, and after Persist.
func (in *Ingest) Err() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.err
}

// Write takes in the next bytes, all of them or none. It fails with SIZE_MISMATCH as soon as there are more than
// announced, with STORAGE_FULL or STORAGE_FAILED, or with the error of Abort.
func (in *Ingest) Write(p []byte) (int, error) {
	if err := in.write(p); err != nil {
		return 0, in.end(err)
	}
	return len(p), nil
}

func (in *Ingest) write(p []byte) error {
	current, err := in.admit(int64(len(p)))
	if err != nil {
		return err
	}
	in.sum.Write(p)
	if current.file != nil {
		// Without the mutex: followers see these bytes only when written says so.
		if _, err := current.file.Write(p); err != nil {
			return durable.Wrap(err, "cannot write content %s", in.want.Digest)
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if current.file == nil {
		current.buffer = append(current.buffer, p...)
	}
	current.written += int64(len(p))
	in.moved.Broadcast()
	return nil
}

// admit decides whether and where the next bytes are written.
func (in *Ingest) admit(incoming int64) (*spool, error) {
	in.mu.Lock()
	current, size := in.spool(), in.want.Size
	err := in.errUnless(!in.verified && current.left == 0)
	in.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if size >= 0 && current.written+incoming > size {
		return nil, errdef.New(errdef.SizeMismatch, "content %s has more than the %d bytes announced", in.want.Digest, size)
	}
	if end := current.written + incoming; current.file != nil && end > current.granted {
		end = current.written + max(incoming, stride)
		if size >= 0 {
			end = min(end, size)
		}
		if err := in.store.room(end - current.written); err != nil {
			return nil, err
		}
		in.mu.Lock()
		current.granted = end
		in.mu.Unlock()
	}
	if current.file == nil && max(size, current.written+incoming) > SmallBytes {
		if err := in.spill(current); err != nil {
			return nil, err
		}
		in.mu.Lock()
		current.buffer = nil
		in.mu.Unlock()
	}
	return current, nil
}

// Check tells whether the bytes that have arrived are the content: nil, SIZE_MISMATCH or DIGEST_MISMATCH. It changes
// nothing: the writer may go on, or Restart.
func (in *Ingest) Check() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.errUnless(!in.verified); err != nil {
		return err
	}
	if written := in.spool().written; in.want.Size >= 0 && written != in.want.Size {
		return errdef.New(errdef.SizeMismatch, "content %s ended after %d of %d bytes", in.want.Digest, written, in.want.Size)
	}
	if got := digest.NewDigest(in.want.Digest.Algorithm(), in.sum); got != in.want.Digest {
		return errdef.New(errdef.DigestMismatch, "content has digest %s, not %s", got, in.want.Digest)
	}
	return nil
}

// Restart drops the bytes that have arrived, so that another source can begin anew. Readers that have had some of them
// fail with cause, which must not be nil; the others have missed nothing and stay.
func (in *Ingest) Restart(cause error) error {
	if cause == nil {
		return errdef.New(errdef.Internal, "Restart without a cause")
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.errUnless(!in.verified); err != nil {
		return err
	}
	if dropped := in.spool(); dropped.file != nil {
		in.store.removeTemporary(dropped.path) // readers may hold it open
	}
	in.sum.Reset()
	in.spools = append(in.spools, newSpool(in.want.Size))
	in.restarted = cause
	in.moved.Broadcast()
	return nil
}

// Verify ends the writing. When the bytes are the content, readers get the rest, and small content enters the memory
// tier, where it stays at least until it is persisted. Otherwise it fails as Check does, and so do all readers.
func (in *Ingest) Verify() error {
	if err := in.Check(); err != nil {
		return in.end(err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended {
		return in.err
	}
	current := in.spool()
	if current.file == nil {
		if len(current.buffer) < cap(current.buffer) {
			current.buffer = append(make([]byte, 0, len(current.buffer)), current.buffer...)
		}
		in.pinned = in.store.memory.pin(in.want.Digest, current.buffer)
	}
	in.want.Size = current.written
	in.verified = true
	in.moved.Broadcast()
	return nil
}

// spool returns the current spool. The caller holds mu.
func (in *Ingest) spool() *spool { return in.spools[len(in.spools)-1] }

// errUnless refuses a step of the writer that is not due. The caller holds mu.
func (in *Ingest) errUnless(due bool) error {
	switch {
	case in.err != nil:
		return in.err
	case in.ended, !due:
		return errdef.New(errdef.Internal, "content %s: Write, Verify and Persist were called out of order", in.want.Digest)
	}
	return nil
}
