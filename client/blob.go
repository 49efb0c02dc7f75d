package client

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/errdef"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
)

// blobReader reads one large blob and goes on at another node, from the byte reached, when the one that sends dies or
// falls silent. It hashes what arrives and withholds the last part until the whole is verified. It is not safe for
// concurrent use.
type blobReader struct {
	ctx        context.Context // of Fetch: it bounds the body, as io.Reader has no room for one
	repository *Repository
	want       ocispec.Descriptor
	verifier   digest.Verifier

	stream   *blobStream
	node     int    // index of the endpoint that sends
	received int64  // bytes that arrived and were hashed
	pending  []byte // arrived and not yet read
	idle     int    // interruptions since the last byte arrived
	err      error  // sticky
}

// openBlob waits for the header of the blob.
func (r *Repository) openBlob(ctx context.Context, want ocispec.Descriptor) (io.ReadCloser, error) {
	reader := &blobReader{ctx: ctx, repository: r, want: want, verifier: want.Digest.Verifier()}
	if err := reader.open(); err != nil {
		return nil, err
	}
	return reader, nil
}

// open starts a stream at the offset reached, on whichever node answers.
func (b *blobReader) open() error {
	client := b.repository.client
	ctx, cancel := context.WithTimeout(b.ctx, client.options.timeout) // to the first byte; the body lives on b.ctx
	defer cancel()
	return client.failover(ctx, b.repository.blobRoute(b.want.Digest), func(i int, patience time.Duration) error {
		target := b.repository.target(b.want.Digest.String())
		request := &registryv1.FetchBlobRequest{Target: target, Offset: b.received}
		stream, header, err := client.openStream(b.ctx, client.pool.endpoints[i], patience, request)
		if err != nil {
			return err
		}
		if size := header.GetDescriptor_().GetSize(); size != b.want.Size {
			stream.close()
			return sizeMismatch(b.want.Digest, size, b.want.Size)
		}
		client.session.observe(header.GetProvenance())
		b.stream, b.node = stream, i
		return nil
	})
}

// Read gives bytes as they arrive.
func (b *blobReader) Read(p []byte) (int, error) {
	for len(b.pending) == 0 && b.err == nil {
		b.err = b.next()
	}
	if len(b.pending) == 0 {
		return 0, b.err
	}
	n := copy(p, b.pending)
	b.pending = b.pending[n:]
	return n, nil
}

// next receives a part into pending, or returns io.EOF when all was received and verified.
func (b *blobReader) next() error {
	if b.received == b.want.Size {
		return io.EOF
	}
	part, err := b.stream.receive(b.repository.client.options.attemptTimeout)
	if err != nil {
		return b.resume(err)
	}
	chunk := part.GetChunk()
	b.received += int64(len(chunk))
	if b.received > b.want.Size {
		return sizeMismatch(b.want.Digest, b.received, b.want.Size)
	}
	_, _ = b.verifier.Write(chunk) // a hash never fails
	if b.received == b.want.Size && !b.verifier.Verified() {
		b.repository.client.putAside(b.node, ErrDigestMismatch)
		return errdef.New(errdef.DigestMismatch, "the content received as %s is something else", b.want.Digest).
			WithRemedy("throw away what was read; the node's disk or the way to it is broken")
	}
	if len(chunk) > 0 {
		b.pending, b.idle = chunk, 0
	}
	return nil
}

// resume goes on elsewhere after an interruption: a dead node, a silent one, or one that ended the stream too early.
func (b *blobReader) resume(cause error) error {
	client := b.repository.client
	b.stream.close()
	if b.ctx.Err() != nil {
		return ended(b.ctx, cause)
	}
	if errors.Is(cause, io.EOF) {
		cause = sizeMismatch(b.want.Digest, b.received, b.want.Size)
	}
	if !elsewhere(cause) {
		return cause
	}
	if b.idle++; b.idle > passes*len(client.pool.endpoints) { // every node opens the blob and none sends a byte
		return cause
	}
	client.putAside(b.node, cause)
	return b.open()
}

// Close ends the transfer. It does not fail.
func (b *blobReader) Close() error {
	b.stream.close()
	if b.err == nil {
		b.pending, b.err = nil, errdef.New(errdef.Canceled, "blob is closed")
	}
	return nil
}
