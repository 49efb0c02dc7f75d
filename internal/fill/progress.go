package fill

import (
	"context"
	"errors"
	"io"
	"time"
)

// progress cancels a context when nothing was read for a while. Time-outs for content are of this kind: a total one
// would be too short for a large layer or too long for a dead connection.
type progress struct {
	limit  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// watch returns a context that ends with cause when the limit passes without progress. The caller stops the watch.
func watch(life context.Context, limit time.Duration, cause error) (context.Context, *progress) {
	ctx, cancel := context.WithCancelCause(life)
	return ctx, &progress{limit: limit, cancel: cancel, timer: time.AfterFunc(limit, func() { cancel(cause) })}
}

// ticking returns a function that counts as progress. It fails when ctx, that of the watch, has ended.
func (p *progress) ticking(ctx context.Context) func() error {
	return func() error {
		p.timer.Reset(p.limit)
		return stopped(ctx)
	}
}

// stopped returns why ctx has ended, nil if it has not.
func stopped(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != nil {
		return networkFailure(cause)
	}
	return nil
}

func (p *progress) stop() {
	p.timer.Stop()
	p.cancel(context.Canceled)
}

const (
	// copyBytes is how much is read at a time: so much as a fast network brings until this node has taken what came before.
	copyBytes = 256 << 10
	// firstBytes is how much is read at first. Most contents are not larger, and to clear a buffer takes time, too.
	firstBytes = 4 << 10
)

// copy writes what body has into the ingest, and counts every read as progress. Where the context ended for want of it,
// the cause is the error.
func (p *progress) copy(ctx context.Context, in io.Writer, body io.Reader) error {
	buffer := make([]byte, firstBytes)
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			p.timer.Reset(p.limit)
			if _, err := in.Write(buffer[:n]); err != nil {
				return err
			}
		}
		if n == len(buffer) && n < copyBytes { // the source has more than that ready
			buffer = make([]byte, 4*n)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return p.explain(ctx, err)
		}
	}
}

// explain returns the cause of the watch when that is why err happened.
func (p *progress) explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}
