package fill

import (
	"context"
	"sync"
	"time"

	"github.com/ocistern/ocistern/blobstore"
)

const (
	// laterQuiet is for how long nothing must have come before what nobody waits for is done: a verification has what it wants by
	// then, and all of it shares fsyncs and one entry of the log.
	laterQuiet = 25 * time.Millisecond
	// laterMost bounds it: so much may have to be asked for again after a crash.
	laterMost = 250 * time.Millisecond
)

// persistConcurrency is how many small contents are made durable at a time. More would only queue at the disk.
const persistConcurrency = 8

// later is where flights wait whose callers have their content already, and go on together. It is safe for concurrent use.
type later struct {
	slots chan struct{}

	mu    sync.Mutex    // guards what follows
	next  chan struct{} // closed when those who wait may go on; nil while nobody does
	first time.Time     // since when
	timer *time.Timer   // to their going on
}

func newLater() *later { return &later{slots: make(chan struct{}, persistConcurrency)} }

// wait returns with all others that wait: when nobody has come for a while, or when ctx ends.
func (l *later) wait(ctx context.Context) {
	select {
	case <-l.join():
	case <-ctx.Done():
	}
}

func (l *later) join() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		l.next, l.first = make(chan struct{}), time.Now()
		l.timer = time.AfterFunc(laterQuiet, l.release)
	} else if left := laterMost - time.Since(l.first); left > 0 {
		l.timer.Reset(min(laterQuiet, left)) // should it have fired, it fires again, for those who come next
	}
	return l.next
}

func (l *later) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next != nil {
		close(l.next)
		l.next = nil
	}
}

// persist makes content durable that was answered: small content later, up to the end of ctx. Large content is worth an fsync of
// its own, and would keep the small ones from theirs.
func (l *later) persist(ctx context.Context, in *blobstore.Ingest) error {
	if in.Descriptor().Size > blobstore.SmallBytes {
		return in.Persist()
	}
	l.wait(ctx)
	l.slots <- struct{}{}
	defer func() { <-l.slots }()
	return in.Persist()
}
