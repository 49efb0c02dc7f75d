package peer

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// silenceTimeout is how long a holder may give nothing before the next one is asked.
const silenceTimeout = 10 * time.Second

// Fetch copies content into an ingest from the first holder that can give it, and verifies it. When a holder dies or
// falls silent, the next one goes on where it stopped. When the bytes turn out to be wrong, they are dropped, and the
// next holder begins anew: readers of the ingest that have had some of them fail, the others do not notice.
//
// On an error the ingest is still open, unless it is the ingest that failed: the caller may go on with another source or
// abort it. Errors are NOT_FOUND without holders, UNAVAILABLE when none could give the content, the reason of ctx, or
// that of the ingest.
func Fetch(ctx context.Context, source Source, holders []catalog.NodeID, in *blobstore.Ingest) error {
	dgst := in.Descriptor().Digest
	if len(holders) == 0 {
		return errdef.New(errdef.NotFound, "no other node holds %s", dgst)
	}
	var failures []error
	for _, holder := range holders {
		err := fetchFrom(ctx, source, holder, in)
		if err == nil {
			return in.Verify()
		}
		if ended := in.Err(); ended != nil {
			return ended
		}
		if ctx.Err() != nil {
			return errdef.Wrap(errdef.ReasonOf(ctx.Err()), ctx.Err(), "fetching %s from its holders", dgst)
		}
		failures = append(failures, errdef.Wrap(errdef.ReasonOf(err), err, "node %s", holder))
	}
	return errdef.Wrap(errdef.Unavailable, errors.Join(failures...), "no holder could give %s", dgst)
}

// fetchFrom completes the ingest from one holder. It returns nil when the bytes are the content.
func fetchFrom(ctx context.Context, source Source, holder catalog.NodeID, in *blobstore.Ingest) error {
	for {
		resumed := in.Written()
		if err := copyFrom(ctx, source, holder, in); err != nil {
			return err
		}
		wrong := in.Check()
		if wrong == nil {
			return nil
		}
		if err := in.Restart(wrong); err != nil {
			return err
		}
		if resumed == 0 {
			return wrong
		}
		// The first bytes came from another holder, so this one may be right: once more, from the start.
	}
}

// copyFrom appends what is missing to the ingest. Bytes beyond the announced size are not read.
func copyFrom(ctx context.Context, source Source, holder catalog.NodeID, in *blobstore.Ingest) error {
	want, offset := in.Descriptor(), in.Written()
	if offset == want.Size {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(silenceTimeout, func() {
		cancel(errdef.New(errdef.Unavailable, "gave nothing for %s", silenceTimeout))
	})
	defer silence.Stop()

	body, size, err := source.FetchHeld(ctx, holder, want.Digest, offset)
	if err != nil {
		return causeOf(ctx, err)
	}
	defer body.Close()
	if want.Size >= 0 && size != want.Size || size < offset {
		return errdef.New(errdef.SizeMismatch, "announces %d bytes of %s", size, want.Digest)
	}
	n, err := io.Copy(in, io.LimitReader(progress{body, silence}, size-offset))
	if err == nil && n < size-offset {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return causeOf(ctx, err)
	}
	return nil
}

// progress is a reader that gives the holder new time with each read.
type progress struct {
	io.Reader
	silence *time.Timer
}

func (p progress) Read(b []byte) (int, error) {
	p.silence.Reset(silenceTimeout)
	return p.Reader.Read(b)
}

// causeOf tells why a read ended: what cancelled it, or else its own error.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
