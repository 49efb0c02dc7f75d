package fill

import (
	"context"
	"errors"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/blobstore/peer"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// arrival is content that all callers of a flight may read: on this node's disk, or on its way there.
type arrival struct {
	descriptor ocispec.Descriptor
	open       func(ctx context.Context, offset int64) (io.ReadCloser, error)
}

// stream opens the content at an offset. While it is arriving, a reader waits for bytes until ctx ends.
func (a *arrival) stream(ctx context.Context, offset int64) (*Stream, error) {
	if size := a.descriptor.Size; offset < 0 || offset > size {
		return nil, errdef.New(errdef.RangeInvalid, "offset %d is outside of %s, which has %d bytes",
			offset, a.descriptor.Digest, size)
	}
	content, err := a.open(ctx, offset)
	if err != nil {
		return nil, err
	}
	return &Stream{ReadCloser: content, Descriptor: a.descriptor}, nil
}

// boundReader follows an ingest until its context ends.
type boundReader struct {
	io.ReadCloser
	ctx  context.Context
	stop func() bool
}

func bind(ctx context.Context, reader io.ReadCloser) *boundReader {
	stop := context.AfterFunc(ctx, func() { _ = reader.Close() }) // wakes a waiting Read
	return &boundReader{ReadCloser: reader, ctx: ctx, stop: stop}
}

// Read implements io.Reader.
func (r *boundReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && r.ctx.Err() != nil {
		err = errdef.Wrap(errdef.ReasonOf(r.ctx.Err()), r.ctx.Err(), "waiting for content")
	}
	return n, err
}

// Close implements io.Closer.
func (r *boundReader) Close() error {
	if r.stop() {
		return r.ReadCloser.Close()
	}
	return nil // the end of the context closed it
}

// held opens content of this node's disk; nil when there is none.
func held(store *blobstore.Store, desc ocispec.Descriptor) *arrival {
	first, err := store.Open(desc.Digest)
	if err != nil {
		return nil // missing, or rotten and in quarantine by now: it will be fetched
	}
	desc.Size = first.Size()
	_ = first.Close() // nothing was read
	return &arrival{descriptor: desc, open: func(_ context.Context, offset int64) (io.ReadCloser, error) {
		content, err := store.Open(desc.Digest)
		if err != nil {
			return nil, err
		}
		if _, err := content.Seek(offset, io.SeekStart); err != nil {
			_ = content.Close() // the first error says more
			return nil, errdef.Wrap(errdef.StorageFailed, err, "cannot read %s", desc.Digest)
		}
		return content, nil
	}}
}

// intake takes content in from one source after another, and announces it as early as is sensible. One goroutine uses
// it.
type intake struct {
	*blobstore.Ingest // nil before begin
	pilot[*arrival]
	key       ContentKey
	store     *blobstore.Store
	announced bool
}

// origin says whose bytes a partial has: another repository's source may have lied.
func (k ContentKey) origin() string { return string(k.Tenant) + " " + string(k.Repository) }

// begin starts the ingest, unless an earlier source has, with what an earlier fill has left on the disk; tick is called
// while that is hashed. Large content is announced at once, so that callers read along; small content, and such of unknown
// size, when it is verified, so that a source that fails or lies costs the callers nothing.
func (i *intake) begin(desc ocispec.Descriptor, tick func() error) error {
	if i.Ingest != nil {
		return nil
	}
	in, err := i.store.Continue(desc, i.key.origin())
	if err != nil {
		return err
	}
	i.Ingest = in
	if desc.Size > blobstore.SmallBytes {
		i.tell()
	}
	return in.Resume(tick)
}

func (i *intake) tell() {
	if i.announced {
		return
	}
	i.announced = true
	in := i.Ingest
	i.announce(&arrival{descriptor: in.Descriptor(), open: func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		return bind(ctx, in.Reader(offset)), nil
	}})
}

// written returns how many bytes are here: where the next source goes on.
func (i *intake) written() int64 {
	if i.Ingest == nil {
		return i.store.Partial(i.key.Digest, i.key.origin())
	}
	return i.Written()
}

// fromHolders takes content in from other nodes, and verifies it. After an error another source may go on.
func (i *intake) fromHolders(
	life context.Context, source Holders, desc ocispec.Descriptor, nodes []catalog.NodeID,
) error {
	if err := i.begin(desc, func() error { return stopped(life) }); err != nil {
		return err
	}
	if err := peer.Fetch(life, source, nodes, i.Ingest); err != nil {
		return err
	}
	i.tell()
	return nil
}

// settle verifies what has arrived. When it is wrong and mixed, some of its bytes being from another source or an earlier
// answer, they are dropped, and again tells that the source should begin anew.
func (i *intake) settle(mixed bool) (again bool, err error) {
	wrong := i.Check()
	switch {
	case wrong != nil && mixed:
		return true, i.Restart(wrong)
	case wrong != nil:
		return false, wrong
	}
	if err := i.Verify(); err != nil {
		return false, err
	}
	i.tell()
	return false, nil
}

// fail gives the content up. Callers that read along get the cause; those who come later start anew, with what has
// arrived unless it is wrong.
func (i *intake) fail(cause error) {
	i.forget()
	wrong := wrongBytes(cause)
	switch {
	case i.Ingest == nil && wrong:
		i.store.DropPartial(i.key.Digest, i.key.origin())
	case i.Ingest != nil && wrong:
		i.Abort(cause)
	case i.Ingest != nil:
		i.Suspend(cause)
	}
}

// wrongBytes tells whether an error says that what has arrived of some content is not worth keeping.
func wrongBytes(err error) bool {
	switch errdef.ReasonOf(err) {
	case errdef.DigestMismatch, errdef.SizeMismatch, errdef.UpstreamInvalid, errdef.NotFound:
		return true
	}
	return false
}
