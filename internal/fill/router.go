package fill

import (
	"context"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// Announcer tells the catalog, sooner or later, that this node holds content durably. It does not block.
type Announcer interface {
	Announce(dgst digest.Digest)
}

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
}

// refreshKey has seen in it, because an answer that is new to one caller may be old to another.
type refreshKey struct {
	Key
	seen catalog.LogIndex
}

// NewRouter returns a Router.
func NewRouter(config RouterConfig) *Router {
	return &Router{
		RouterConfig: config,
		refreshes:    newFlights[refreshKey, catalog.LogIndex](), contents: newFlights[ContentKey, *arrival](),
	}
}

// Close stops all flights and waits for them. Later calls fail with UNAVAILABLE.
func (r *Router) Close() {
	r.refreshes.close()
	r.contents.close()
}

// Mirrors tells whether a repository mirrors a configured upstream.
func (r *Router) Mirrors(repository reference.Repository) bool { return r.Filler.Mirrors(repository) }

// Refresh makes the owner of key refresh it (see Filler.Refresh). An owner that cannot be reached is replaced by the next
// in rank; its other errors are final. The index returned may not be applied on this node yet.
func (r *Router) Refresh(ctx context.Context, key Key, seen catalog.LogIndex) (catalog.LogIndex, error) {
	owners := key.owners(r.living())
	if owners[0] == r.Members.Self() {
		return r.Filler.Refresh(ctx, key, seen)
	}
	index, joined, err := r.refreshes.join(ctx, refreshKey{key, seen},
		func(life context.Context, _ pilot[catalog.LogIndex]) (index catalog.LogIndex, err error) {
			for _, owner := range owners {
				if owner == r.Members.Self() {
					index, err = r.Filler.Refresh(life, key, seen)
				} else {
					index, err = r.Peers.Refresh(life, owner, key, seen)
				}
				if !replaceable(err) {
					return index, err
				}
				r.Logger.Warn("an owner cannot be reached", "node", owner, "repository", key.Repository, "error", err)
			}
			return 0, err
		})
	r.count(key.Repository, joined)
	return index, err
}

// Fetch opens content that this node does not have, at an offset: one flight for all local callers, from the holders
// known in the catalog, then from the owner, and from the next in rank where that one cannot be reached. The stream
// follows the bytes as they arrive and ends with ctx. What arrives is made durable on this node too, also when all
// callers have left. Errors are those of Filler.Fetch.
func (r *Router) Fetch(ctx context.Context, key ContentKey, offset int64) (*Stream, error) {
	owners := key.owners(r.living())
	if owners[0] == r.Members.Self() && r.Mirrors(key.Repository) {
		return r.Filler.Fetch(ctx, key, offset)
	}
	found, joined, err := r.contents.join(ctx, key, func(life context.Context, pilot pilot[*arrival]) (*arrival, error) {
		in := &intake{store: r.Filler.Store, pilot: pilot}
		return nil, r.receive(life, key, owners, in)
	})
	r.count(key.Repository, joined)
	if err != nil {
		return nil, err
	}
	return found.stream(ctx, offset)
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

// receive takes content in, verified, from whoever has it and makes it durable.
func (r *Router) receive(life context.Context, key ContentKey, owners []catalog.NodeID, in *intake) error {
	if err := r.fromAny(life, key, owners, in); err != nil {
		in.fail(err)
		return err
	}
	if err := in.Persist(); err != nil { // the callers have their content; this node will fetch it again
		r.Logger.Error("fetched content is not durable", "digest", key.Digest, "repository", key.Repository, "error", err)
		return nil
	}
	if r.published(life, key.Digest) {
		r.Announcer.Announce(key.Digest)
	}
	return nil
}

// published waits until this node's catalog knows the content: the catalog takes no holders of what it does not know.
// Until then the flight stays joinable, so that nobody here asks the owner again.
func (r *Router) published(life context.Context, dgst digest.Digest) bool {
	ctx, cancel := context.WithTimeout(life, r.Filler.Timings.Publish)
	defer cancel()
	snapshot := r.Filler.Catalog.Snapshot()
	for {
		if blob, ok := snapshot.Blob(dgst); ok && len(blob.Holders) > 0 {
			return true
		}
		var err error
		if snapshot, err = r.Filler.Catalog.Wait(ctx, snapshot.Index()+1); err != nil {
			return false // its owner could not publish it, and said so
		}
	}
}

func (r *Router) fromAny(life context.Context, key ContentKey, owners []catalog.NodeID, in *intake) error {
	_, _, err := r.Filler.upstreamOf(key.Repository)
	mirrored := err == nil
	snapshot := r.Filler.Catalog.Snapshot()
	if desc, nodes := key.holders(snapshot, r.Members.Self()); len(nodes) > 0 {
		err = in.fromHolders(life, r.Filler.Holders, desc, nodes)
		if err == nil {
			return nil
		}
		r.Logger.Warn("no holder could give content", "digest", key.Digest, "repository", key.Repository, "error", err)
	}
	if !mirrored { // no upstream, or none any more: holders are all there is
		return err
	}
	for _, owner := range owners {
		if err = r.fromOwner(life, key, owner, in); !replaceable(err) {
			return err
		}
		r.Logger.Warn("an owner cannot be reached", "node", owner, "repository", key.Repository, "error", err)
	}
	return err
}

// ownerPatience is how much longer than the owner's own time-outs this node waits for it to make progress.
const ownerPatience = 10 * time.Second

// fromOwner goes on where the source before has ended, and verifies.
func (r *Router) fromOwner(life context.Context, key ContentKey, owner catalog.NodeID, in *intake) error {
	limit := max(r.Filler.Timings.Stall, r.Filler.Timings.Metadata) + ownerPatience
	stalled := errdef.New(errdef.Unavailable, "node %s: no progress for %s", owner, limit)
	ctx, progress := watch(life, limit, stalled)
	defer progress.stop()
	resumed := in.written()
	var content *Stream
	var err error
	if owner == r.Members.Self() {
		content, err = r.Filler.Fetch(ctx, key, resumed)
	} else {
		content, err = r.Peers.FetchContent(ctx, owner, key, resumed)
	}
	if err != nil {
		return progress.explain(ctx, err)
	}
	defer content.Close()
	desc := ocispec.Descriptor{MediaType: content.Descriptor.MediaType, Digest: key.Digest, Size: content.Descriptor.Size}
	if err := in.begin(desc); err != nil {
		return err
	}
	if err := progress.copy(ctx, in, content); err != nil {
		return err
	}
	if in.written() < desc.Size {
		return errdef.New(errdef.Unavailable, "node %s ended the content after %d of %d bytes", owner, in.written(), desc.Size)
	}
	again, err := in.settle(resumed)
	if again && err == nil {
		return r.fromOwner(life, key, owner, in)
	}
	return err
}
