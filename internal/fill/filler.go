package fill

import (
	"context"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Filler asks upstreams on behalf of the whole cluster, for the keys that this node owns. It is safe for concurrent use.
type Filler struct {
	config FillerConfig
}

// NewFiller returns a Filler, or an error of reason CONFIG_INVALID when an upstream is not well configured.
func NewFiller(config FillerConfig) (*Filler, error) {
	return &Filler{config: config}, nil
}

// Refresh asks the upstream for a tag or a referrers list, once for all callers, publishes the answer and returns the
// catalog index at which it can be read on this node. seen is the index at which the caller found the fact missing or
// no longer fresh; when this node's catalog is newer and has it fresh, the upstream is not asked.
//
// It fails with NOT_FOUND only after a definite 404, which is recorded; with an UPSTREAM_* reason when the upstream
// could not be asked or gave no valid answer; with NO_QUORUM when the answer could not be published.
func (f *Filler) Refresh(_ context.Context, key Key, _ catalog.LogIndex) (catalog.LogIndex, error) {
	return 0, errdef.New(errdef.Unsupported, "refresh of %v", key)
}

// Fetch opens content from an offset: from this node's disk when the repository has a link to it, else from a holder,
// else from the upstream, once for all callers. The stream follows the bytes as they arrive. What arrived is made
// durable and published even when all callers have left.
func (f *Filler) Fetch(_ context.Context, key ContentKey, _ int64) (*Stream, error) {
	return nil, errdef.New(errdef.Unsupported, "fetch of %v", key)
}

// Close stops all flights and waits for them.
func (f *Filler) Close() {}
