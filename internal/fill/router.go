package fill

import (
	"context"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// Announcer tells the catalog, sooner or later, that this node holds content durably. It does not block.
type Announcer interface {
	Announce(dgst digest.Digest)
}

// ownerPatience is how much longer than the owner's own time-outs this node waits for it to make progress.
const ownerPatience = 10 * time.Second

// RouterConfig is what a Router needs; all of it. The Router shares catalog, store and the rest with its Filler.
type RouterConfig struct {
	Filler    *Filler
	Members   Members
	Peers     Peers
	Announcer Announcer
	Logger    *slog.Logger
}

// Router finds the owner of a key among the living members and makes it fill. Each node has one. It is safe for
// concurrent use.
type Router struct {
	RouterConfig
	refreshes *flights[refreshKey, catalog.LogIndex]
	contents  *flights[ContentKey, *arrival]
	patience  time.Duration
}

// refreshKey has seen in it, because an answer that is new to one caller may be old to another.
type refreshKey struct {
	Key
	seen catalog.LogIndex
}

// NewRouter returns a Router.
func NewRouter(config RouterConfig) *Router {
	return &Router{
		RouterConfig: config, patience: ownerPatience,
		refreshes: newFlights[refreshKey, catalog.LogIndex](), contents: newFlights[ContentKey, *arrival](),
	}
}

// Close stops all flights and waits for them. Later calls fail with UNAVAILABLE.
func (r *Router) Close() {
	r.refreshes.close()
	r.contents.close()
}

// Running counts the flights of this node. They last until what they fetched is published, or could not be.
func (r *Router) Running() int {
	return r.refreshes.count() + r.contents.count() + r.Filler.refreshes.count() + r.Filler.contents.count()
}

// Mirrors tells whether a repository mirrors a configured upstream.
func (r *Router) Mirrors(repository reference.Repository) bool { return r.Filler.Mirrors(repository) }

// Refresh makes the owner of key refresh it (see Filler.Refresh). An owner that cannot be reached is replaced by the
// next in rank; its other errors are final. The index returned may not be applied on this node yet.
func (r *Router) Refresh(ctx context.Context, key Key, seen catalog.LogIndex) (catalog.LogIndex, error) {
	if err := r.Filler.admit(ctx, key.Tenant, key.Repository); err != nil {
		return 0, err
	}
	owners := key.owners(r.living())
	if owners[0] == r.Members.Self() {
		return r.Filler.Refresh(ctx, key, seen)
	}
	index, joined, err := r.refreshes.join(ctx, refreshKey{key, seen},
		func(life context.Context, _ pilot[catalog.LogIndex]) (index catalog.LogIndex, err error) {
			for _, owner := range owners {
				if index, err = r.refreshAt(life, owner, key, seen); !replaceable(err) {
					return index, err
				}
				r.Logger.Warn("an owner cannot be reached", "node", owner, "repository", key.Repository, "error", err)
			}
			return 0, err
		})
	r.count(key.Repository, joined)
	return index, err
}

func (r *Router) refreshAt(
	life context.Context, owner catalog.NodeID, key Key, seen catalog.LogIndex,
) (catalog.LogIndex, error) {
	if owner == r.Members.Self() {
		return r.Filler.Refresh(life, key, seen)
	}
	limit := r.Filler.Timings.Metadata + r.Filler.Timings.Publish + r.patience
	ctx, cancel := context.WithTimeout(life, limit)
	defer cancel()
	index, err := r.Peers.Refresh(ctx, owner, key, seen)
	if err != nil && ctx.Err() != nil && life.Err() == nil {
		return 0, errdef.Wrap(errdef.Unavailable, err, "node %s: no answer for %s", owner, limit)
	}
	return index, err
}

// living returns the members that may own a key: at least this node.
func (r *Router) living() []catalog.NodeID {
	if living := r.Members.Living(); len(living) > 0 {
		return living
	}
	return []catalog.NodeID{r.Members.Self()}
}

func (r *Router) count(repository reference.Repository, avoided bool) {
	if host, _ := repository.UpstreamHost(); avoided {
		r.Filler.Observer.Avoided(host)
	}
}

// replaceable tells whether an error says nothing about the key, so that the next in rank may be asked.
func replaceable(err error) bool {
	switch errdef.ReasonOf(err) {
	case errdef.Unavailable, errdef.NotReady:
		return true
	}
	return false
}
