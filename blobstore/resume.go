package blobstore

import (
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/durable"
)

// Continue begins as Begin does, with the bytes that an earlier ingest of the same content and origin has left: one that
// was suspended, or whose process died. The origin, any text, says whom the bytes are from. Resume comes before the first
// Write.
func (s *Store) Continue(want ocispec.Descriptor, origin string) (*Ingest, error) {
	in, err := s.Begin(want)
	if err != nil {
		return nil, err
	}
	key := newPartialKey(want.Digest, origin)
	in.key = &key
	s.partials.sweep(s.partials.bytes)
	if opened := s.openPartial(key, want.Size); opened != nil {
		in.spools[0] = opened
	}
	return in, nil
}

// resumePiece is how many bytes Resume takes over at a time.
const resumePiece = 256 << 10

// Resume takes over the bytes that were left: it hashes them, and readers read along. What is wrong with them is found by
// Check, at the end. It calls tick after each piece; an error of it suspends the ingest. Without bytes left it does nothing.
func (in *Ingest) Resume(tick func() error) error {
	in.mu.Lock()
	current, size := in.spool(), in.want.Size
	left := current.left
	in.mu.Unlock()
	if left == 0 {
		return nil
	}
	if err := in.store.room(max(0, size-left)); err != nil {
		return in.end(err)
	}
	for buffer := make([]byte, resumePiece); left > 0; {
		piece := buffer[:min(int64(len(buffer)), left)]
		if _, err := current.file.ReadAt(piece, current.written); err != nil {
			return in.end(durable.Wrap(err, "cannot read partial content %s", in.want.Digest))
		}
		in.sum.Write(piece)
		if err := in.takeOver(current, int64(len(piece))); err != nil {
			return err
		}
		if err := tick(); err != nil {
			in.Suspend(err)
			return err
		}
		left -= int64(len(piece))
	}
	return nil
}

func (in *Ingest) takeOver(current *spool, n int64) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.errUnless(!in.verified); err != nil {
		return err
	}
	current.written += n
	current.left -= n
	in.moved.Broadcast()
	return nil
}

// Suspend gives the ingest up as Abort does, but leaves the bytes that have arrived for the next ingest that continues the
// content: only after Continue, only large content. The writer alone may call it. They are not fsynced, since they are
// hashed anew; what power loss has spoiled of them is found by then.
func (in *Ingest) Suspend(cause error) {
	in.mu.Lock()
	size := in.spool().written + in.spool().left
	worth := in.key != nil && !in.verified && size > SmallBytes
	in.mu.Unlock()
	if !worth {
		in.Abort(cause)
		return
	}
	_ = in.endWith(orCanceled(cause), func(path string) {
		in.store.partials.put(*in.key, partial{path: path, size: size, modified: time.Now()})
	})
	in.store.partials.sweep(in.store.partials.bytes)
}
