package peer

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/fsm/catalog"
)

const (
	noticeLimit     = 4096 // digests that wait to be looked at; what comes then is left to the next scan
	copyConcurrency = 8    // an fsync each: more would only queue at the disk
	copyTimeout     = 30 * time.Second
	scanRetry       = time.Second // until the scan after a failure; doubles while there are failures
	scanRetryMax    = time.Minute
)

// Catalog gives the current snapshot. A catalog.Catalog does.
type Catalog interface {
	Snapshot() *catalog.Snapshot
}

// ReplicatorConfig holds the parts of a Replicator. All are required.
type ReplicatorConfig struct {
	Self      catalog.NodeID
	Catalog   Catalog
	Store     *blobstore.Store
	Source    Source
	Announcer *Announcer
	Logger    *slog.Logger
}

// Replicator keeps a copy of all small content (up to blobstore.SmallBytes) on this node, and the catalog's word on what
// this node holds true for content of any size. Its work list is the catalog itself: a scan at the start, and after each
// failure, finds what is to be done. Notice and Recheck only make it happen sooner.
type Replicator struct {
	ReplicatorConfig
	noticed  chan digest.Digest
	rescan   chan struct{} // holds one signal when a scan is due
	failures atomic.Int64  // since the last scan
}

// NewReplicator returns a replicator. It does nothing before Run.
func NewReplicator(config ReplicatorConfig) *Replicator {
	return &Replicator{
		ReplicatorConfig: config, noticed: make(chan digest.Digest, noticeLimit), rescan: make(chan struct{}, 1),
	}
}

// Notice tells of entries that were applied to the catalog (fsm.Options.Applied). It is cheap and does not block.
func (r *Replicator) Notice(entries []catalog.Entry) {
	for _, entry := range entries {
		if published, ok := entry.Command.(catalog.Publish); ok && published.Holder != r.Self {
			for _, blob := range published.Blobs {
				if blob.Size <= blobstore.SmallBytes {
					r.Recheck(blob.Digest)
				}
			}
		}
	}
}

// Recheck tells that this node may lack content which it should have, or which the catalog says it has: for example
// because it was quarantined or shed (blobstore.Options.Lost). It does not block.
func (r *Replicator) Recheck(dgst digest.Digest) {
	select {
	case r.noticed <- dgst:
	default:
		r.Rescan()
	}
}

// Rescan tells that the catalog has changed in a way that Notice was not told of, by a snapshot. It does not block.
func (r *Replicator) Rescan() {
	select {
	case r.rescan <- struct{}{}:
	default:
	}
}

// Run replicates until ctx ends.
func (r *Replicator) Run(ctx context.Context) {
	var copies sync.WaitGroup
	defer copies.Wait()
	slots := make(chan struct{}, copyConcurrency)
	start := func(blob catalog.Blob) {
		slots <- struct{}{}
		copies.Go(func() {
			defer func() { <-slots }()
			r.settle(ctx, blob)
		})
	}
	retry := scanRetry
	for ctx.Err() == nil {
		for blob := range r.Catalog.Snapshot().Blobs() {
			if ctx.Err() == nil && !r.settled(blob) {
				start(blob)
			}
		}
		r.follow(ctx, retry, start)
		if failed := r.failures.Swap(0); failed > 0 {
			r.Logger.Warn("content could not be copied to this node, trying again", "blobs", failed)
			retry = min(2*retry, scanRetryMax)
		} else {
			retry = scanRetry
		}
	}
}

// follow looks at what is noticed until a scan is due, which it puts off by the given time.
func (r *Replicator) follow(ctx context.Context, retry time.Duration, start func(catalog.Blob)) {
	var due <-chan time.Time
	for {
		select {
		case dgst := <-r.noticed:
			if blob, known := r.Catalog.Snapshot().Blob(dgst); known && !r.settled(blob) {
				start(blob)
			}
		case <-r.rescan:
			if due == nil {
				due = time.After(retry)
			}
		case <-due:
			return
		case <-ctx.Done():
			return
		}
	}
}

// settled tells whether nothing is to be done: the catalog is right about this node, and small content is here.
func (r *Replicator) settled(blob catalog.Blob) bool {
	_, held := r.Store.Stat(blob.Digest)
	listed := slices.Contains(blob.Holders, r.Self)
	return held == listed && (held || !r.wanted(blob))
}

// wanted tells whether this node should fetch content that it does not hold.
func (r *Replicator) wanted(blob catalog.Blob) bool {
	return blob.Size >= 0 && blob.Size <= blobstore.SmallBytes && len(r.others(blob)) > 0
}

// others returns the other holders, beginning at another one on each node, so that the load is spread.
func (r *Replicator) others(blob catalog.Blob) []catalog.NodeID {
	at, listed := slices.BinarySearch(blob.Holders, r.Self)
	after := at
	if listed {
		after++
	}
	return slices.Concat(blob.Holders[after:], blob.Holders[:at])
}

// settle does what is to be done about one blob.
func (r *Replicator) settle(ctx context.Context, blob catalog.Blob) {
	if _, held := r.Store.Stat(blob.Digest); !held && r.wanted(blob) {
		if err := r.copy(ctx, blob); err != nil {
			r.Logger.Debug("content could not be copied to this node", "digest", blob.Digest, "error", err)
			r.failures.Add(1)
			r.Rescan()
		}
	}
	if _, held := r.Store.Stat(blob.Digest); held != slices.Contains(blob.Holders, r.Self) {
		r.Announcer.Announce(blob.Digest)
	}
}

func (r *Replicator) copy(ctx context.Context, blob catalog.Blob) error {
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	in, err := r.Store.Begin(ocispec.Descriptor{Digest: blob.Digest, Size: blob.Size})
	if err != nil {
		return err
	}
	defer in.Abort(nil)
	if err := Fetch(ctx, r.Source, r.others(blob), in); err != nil {
		return err
	}
	return in.Persist()
}
