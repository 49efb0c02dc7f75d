package peer

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/fsm/catalog"
)

const (
	announceDelay = 50 * time.Millisecond // gathers what many fetches announce into one log entry
	announceItems = 500                   // in one log entry

	announceRetry    = 100 * time.Millisecond // doubles with each failure
	announceRetryMax = 5 * time.Second
)

// Holdings tells what this node has on disk. A blobstore.Store does.
type Holdings interface {
	Stat(dgst digest.Digest) (size int64, ok bool)
}

// Announcer tells the catalog what this node holds, in batches, until the catalog knows. It is safe for concurrent use.
type Announcer struct {
	self     catalog.NodeID
	holdings Holdings
	proposer Proposer
	logger   *slog.Logger
	wake     chan struct{} // holds one signal when pending is not empty

	mu      sync.Mutex // guards pending
	pending map[digest.Digest]struct{}
}

// NewAnnouncer returns an announcer for one node. It does nothing before Run.
func NewAnnouncer(self catalog.NodeID, holdings Holdings, proposer Proposer, logger *slog.Logger) *Announcer {
	return &Announcer{
		self: self, holdings: holdings, proposer: proposer, logger: logger,
		wake: make(chan struct{}, 1), pending: map[digest.Digest]struct{}{},
	}
}

// Announce sees to it that the catalog learns whether this node holds the content: AddHolder when it has it on disk at
// the time of the proposal, RemoveHolder when it has not. It does not block.
func (a *Announcer) Announce(dgst digest.Digest) {
	a.mu.Lock()
	a.pending[dgst] = struct{}{}
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Run proposes what is announced until ctx ends. While the catalog cannot be changed it goes on trying; what is then
// still pending when ctx ends is found again by the scan of a Replicator after the next start.
func (a *Announcer) Run(ctx context.Context) {
	retry := announceRetry
	for wait(ctx, a.wake) && pause(ctx, announceDelay) {
		for batch := a.take(); len(batch) > 0; batch = a.take() {
			err := a.propose(ctx, batch)
			if err == nil {
				retry = announceRetry
				continue
			}
			for _, dgst := range batch {
				a.Announce(dgst)
			}
			a.logger.Warn("the catalog could not be told what this node holds", "blobs", len(batch), "retry", retry, "error", err)
			if !pause(ctx, retry) {
				return
			}
			retry = min(2*retry, announceRetryMax)
		}
	}
}

// take removes a batch from what is pending.
func (a *Announcer) take() []digest.Digest {
	a.mu.Lock()
	defer a.mu.Unlock()
	var batch []digest.Digest
	for dgst := range a.pending {
		if len(batch) == announceItems {
			break
		}
		batch = append(batch, dgst)
		delete(a.pending, dgst)
	}
	return batch
}

func (a *Announcer) propose(ctx context.Context, batch []digest.Digest) error {
	var held, lost []digest.Digest
	for _, dgst := range batch {
		if _, ok := a.holdings.Stat(dgst); ok {
			held = append(held, dgst)
		} else {
			lost = append(lost, dgst)
		}
	}
	if len(held) > 0 {
		if _, err := a.proposer.Apply(ctx, catalog.AddHolder{Node: a.self, Digests: held}); err != nil {
			return err
		}
	}
	if len(lost) > 0 {
		if _, err := a.proposer.Apply(ctx, catalog.RemoveHolder{Node: a.self, Digests: lost}); err != nil {
			return err
		}
	}
	for _, dgst := range lost {
		if _, ok := a.holdings.Stat(dgst); ok { // it came, and may have been published, before it was retracted
			a.Announce(dgst)
		}
	}
	return nil
}

// wait waits for a signal. It returns false when ctx ended.
func wait(ctx context.Context, signal <-chan struct{}) bool {
	select {
	case <-signal:
		return true
	case <-ctx.Done():
		return false
	}
}

// pause waits. It returns false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
