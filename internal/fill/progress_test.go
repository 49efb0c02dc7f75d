package fill

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
)

// slowReader gives one byte a second, and nothing any more after some of them.
type slowReader struct {
	ctx  context.Context
	left int
	stop bool
}

func (r *slowReader) Read(p []byte) (int, error) {
	if r.left == 0 && !r.stop {
		return 0, io.EOF
	}
	if r.left == 0 {
		<-r.ctx.Done()
		return 0, r.ctx.Err()
	}
	<-time.After(time.Second)
	r.left--
	p[0] = 'x'
	return 1, nil
}

// Content may take for ever as long as it makes progress; content that makes none ends with the cause of the watch.
func TestProgressIsWatchedNotTotalTime(t *testing.T) {
	stalled := errdef.New(errdef.UpstreamTimeout, "no progress")
	for _, stop := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ctx, progress := watch(t.Context(), 2*time.Second, stalled)
			defer progress.stop()
			var got strings.Builder
			started := time.Now()
			err := progress.copy(ctx, &got, &slowReader{ctx, 3600, stop})
			took := time.Since(started)
			if got.Len() != 3600 {
				t.Errorf("got %d bytes, %v", got.Len(), err)
			}
			if stop && (!errors.Is(err, stalled) || took != time.Hour+2*time.Second) {
				t.Errorf("stalled content ended after %s with %v", took, err)
			}
			if !stop && err != nil {
				t.Errorf("slow content ended with %v", err)
			}
		})
	}
}

func TestProgressKeepsOtherErrors(t *testing.T) {
	life, end := context.WithCancel(t.Context())
	ctx, progress := watch(life, time.Hour, errors.New("stalled"))
	defer progress.stop()
	broken := errors.New("broken")
	if err := progress.copy(ctx, io.Discard, iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("a broken source: %v", err)
	}
	end()
	if err := progress.copy(ctx, io.Discard, &slowReader{ctx, 0, true}); !errors.Is(err, context.Canceled) {
		t.Errorf("a flight that is stopped: %v", err)
	}
}
