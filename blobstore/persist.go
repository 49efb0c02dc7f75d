package blobstore

import (
	"path/filepath"

	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Persist makes verified content durable: after it has returned nil the content survives power loss. It fails with
// STORAGE_FULL or STORAGE_FAILED; readers are not disturbed, for what they read is verified.
func (in *Ingest) Persist() error {
	in.mu.Lock()
	current, size := in.spool(), in.want.Size
	err := in.errUnless(in.verified)
	in.mu.Unlock()
	if err == nil {
		err = in.persist(current, Blob{Digest: in.want.Digest, Size: size})
	}
	return in.end(err)
}

// persist goes through the steps whose order makes a crash harmless: the bytes are fsynced before their name is one
// that means "whole", and the name is fsynced before anybody is told.
func (in *Ingest) persist(current *spool, blob Blob) error {
	if current.file == nil {
		if err := in.spill(current); err != nil {
			return err
		}
	}
	err := current.file.Sync()
	if err == nil {
		err = in.store.place(current.path, blob)
	}
	if err == nil {
		err = in.store.disk.SyncDir(filepath.Dir(in.store.path(blob.Digest)))
	}
	if err != nil {
		return durable.Wrap(err, "cannot persist content %s", blob.Digest)
	}
	return nil
}

// Abort gives the ingest up, for the given cause (CANCELED when nil), which the readers get unless the content is
// verified. It does nothing when the ingest has ended, so it may be deferred.
func (in *Ingest) Abort(cause error) {
	_ = in.end(orCanceled(cause)) // it is the caller's own
}

func orCanceled(cause error) error {
	if cause == nil {
		return errdef.New(errdef.Canceled, "the ingest was given up")
	}
	return cause
}

// end ends the ingest: persisted when err is nil. It returns the error that the ingest ended with, which is another one
// when it had ended before.
func (in *Ingest) end(err error) error { return in.endWith(err, in.store.removeTemporary) }

// endWith does so, and lets discard have the path of a temporary file that is of no more use to the ingest.
func (in *Ingest) endWith(err error, discard func(path string)) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended {
		return in.err
	}
	in.ended, in.err = true, err
	if err != nil && in.spool().file != nil {
		discard(in.spool().path)
	}
	if in.pinned != nil {
		in.store.memory.unpin(in.pinned)
	}
	in.moved.Broadcast()
	in.release()
	return err
}

// release closes the files when they are of no more use. The caller holds mu.
func (in *Ingest) release() {
	if !in.ended || in.followers > 0 || in.released {
		return
	}
	in.released = true
	for _, s := range in.spools {
		if s.file != nil {
			_ = s.file.Close() // what counts was fsynced, the rest is removed
		}
	}
}

// spill writes what is in memory to a temporary file, which belongs to the spool from then on.
func (in *Ingest) spill(current *spool) error {
	if err := in.store.room(max(in.want.Size, int64(len(current.buffer)))); err != nil {
		return err
	}
	created, path, err := in.store.createTemporary(in.key)
	if err == nil {
		in.mu.Lock()
		ended := in.ended
		if !ended {
			current.file, current.path = created, path
		}
		in.mu.Unlock()
		if ended { // by Abort, which did not know of the file
			_ = created.Close()
			in.store.removeTemporary(path)
		}
		_, err = created.Write(current.buffer)
	}
	if err != nil {
		return durable.Wrap(err, "cannot write content %s", in.want.Digest)
	}
	return nil
}
