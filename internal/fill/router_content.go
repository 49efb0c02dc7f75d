package fill

import (
	"context"
	"errors"
	"io"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Fetch opens content that this node does not have, at an offset: one flight for all local callers, from the holders
// known in the catalog, then from the owner, and from the next in rank where that one cannot be reached. The stream
// follows the bytes as they arrive and ends with ctx. What arrives is made durable on this node too, also when all
// callers have left. Errors are those of Filler.Fetch.
func (r *Router) Fetch(ctx context.Context, key ContentKey, offset int64) (*Stream, error) {
	if err := r.admit(ctx, key); err != nil {
		return nil, err
	}
	owners := key.owners(r.living())
	if owners[0] == r.Members.Self() && r.Mirrors(key.Repository) {
		return r.Filler.Fetch(ctx, key, offset)
	}
	found, joined, err := r.contents.join(ctx, key, func(life context.Context, pilot pilot[*arrival]) (*arrival, error) {
		in := &intake{store: r.Filler.Store, pilot: pilot, key: key}
		return r.receive(life, key, owners, in)
	})
	r.count(key.Repository, joined)
	if err != nil {
		return nil, err
	}
	return found.stream(ctx, offset)
}

// admit is Filler.admit for content that only the upstream may have.
func (r *Router) admit(ctx context.Context, key ContentKey) error {
	_, holders := key.holders(r.Filler.Catalog.Snapshot(), "")
	if len(holders) > 0 || !r.Mirrors(key.Repository) {
		return nil
	}
	return r.Filler.admit(ctx, key.Tenant, key.Repository)
}

// receive takes content in, verified, from whoever has it and makes it durable. It returns an arrival when this node
// has the content after all.
func (r *Router) receive(
	life context.Context, key ContentKey, owners []catalog.NodeID, in *intake,
) (*arrival, error) {
	if found := r.Filler.linked(r.Filler.Catalog.Snapshot(), key); found != nil {
		return found, nil // the flight before has just ended
	}
	observed := r.Filler.Clock()
	if err := r.fromAny(life, key, owners, in); err != nil {
		in.fail(err)
		return nil, err
	}
	if err := r.Filler.later.persist(life, in.Ingest); err != nil { // the callers have their content; this node will fetch it again
		r.Logger.Error("fetched content is not durable", "digest", key.Digest, "repository", key.Repository, "error", err)
		return nil, nil
	}
	switch {
	case r.published(life, key):
		r.Announcer.Announce(key.Digest)
	case life.Err() == nil && r.Mirrors(key.Repository):
		r.publishForOwner(life, key, in, observed)
	}
	return nil, nil
}

// published waits until this node's catalog knows the content: the catalog takes no holders of what it does not know.
// Until then the flight stays joinable, so that nobody here asks the owner again.
func (r *Router) published(life context.Context, key ContentKey) bool {
	ctx, cancel := context.WithTimeout(life, r.Filler.Timings.Publish)
	defer cancel()
	snapshot := r.Filler.Catalog.Snapshot()
	for {
		blob, _ := snapshot.Blob(key.Digest)
		if _, linked := key.link(snapshot); linked && len(blob.Holders) > 0 {
			return true
		}
		var err error
		if snapshot, err = r.Filler.Catalog.Wait(ctx, snapshot.Index()+1); err != nil {
			return false // its owner could not publish it, or has died since it gave it away
		}
	}
}

// publishForOwner publishes what the owner did not: what a caller was given stays known although the owner was lost with it.
func (r *Router) publishForOwner(life context.Context, key ContentKey, in *intake, observed time.Time) {
	command, err := r.ownersCommand(key, in, observed)
	if err == nil {
		_, err = r.Filler.publish(life, command)
	}
	if err != nil {
		r.Logger.Warn("content is not published", "digest", key.Digest, "repository", key.Repository, "error", err)
	}
}

// ownersCommand returns the command that the owner would have published, with this node as the holder.
func (r *Router) ownersCommand(key ContentKey, in *intake, observed time.Time) (catalog.Publish, error) {
	desc := in.Descriptor()
	command := r.Filler.published(key.Tenant, key.Repository, desc, observed)
	if key.Kind == ContentBlob {
		return command, nil
	}
	content := in.Reader(0)
	body, err := io.ReadAll(io.LimitReader(content, r.Filler.ManifestBytes)) // an owner takes no more
	if err := errors.Join(err, content.Close()); err != nil {
		return command, err
	}
	manifest, err := parseManifest(desc, body)
	command.Manifests = []catalog.Manifest{manifest}
	return command, err
}

func (r *Router) fromAny(life context.Context, key ContentKey, owners []catalog.NodeID, in *intake) error {
	_, _, err := r.Filler.upstreamOf(key.Tenant, key.Repository)
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

// fromOwner goes on where the source before has ended, and verifies. An owner that finds that its bytes are wrong drops
// them and fetches anew, and so does this node, once.
func (r *Router) fromOwner(life context.Context, key ContentKey, owner catalog.NodeID, in *intake) error {
	for anew := false; ; anew = true {
		resumed := in.written()
		err := r.readAlong(life, key, owner, in)
		if err == nil {
			again, err := in.settle(resumed > 0 && !anew)
			if !again || err != nil {
				return err
			}
			continue
		}
		if anew || in.Ingest == nil || in.written() == 0 || errdef.ReasonOf(err) != errdef.DigestMismatch {
			return err
		}
		if failed := in.Restart(err); failed != nil {
			return failed
		}
	}
}

// readAlong takes in what this node lacks. The owner may have less than this node, if it has taken the place of one that
// died, so its bytes are read from the first one on: a caller that is ahead sees progress, and waits.
func (r *Router) readAlong(life context.Context, key ContentKey, owner catalog.NodeID, in *intake) error {
	limit := max(2*r.Filler.Timings.Stall, r.Filler.Timings.Metadata) + r.patience
	stalled := errdef.New(errdef.Unavailable, "node %s: no progress for %s", owner, limit)
	ctx, progress := watch(life, limit, stalled)
	defer progress.stop()
	var content *Stream
	var err error
	if owner == r.Members.Self() {
		content, err = r.Filler.Fetch(ctx, key, 0)
	} else {
		content, err = r.Peers.FetchContent(ctx, owner, key, 0)
	}
	if err != nil {
		return progress.explain(ctx, err)
	}
	defer content.Close()
	desc := ocispec.Descriptor{MediaType: content.Descriptor.MediaType, Digest: key.Digest, Size: content.Descriptor.Size}
	if err := in.begin(desc, progress.ticking(ctx)); err != nil {
		return err
	}
	err = progress.copy(ctx, io.Discard, io.LimitReader(content, in.written()))
	if err == nil {
		err = progress.copy(ctx, in, content)
	}
	if err == nil && in.written() < desc.Size {
		err = errdef.New(errdef.Unavailable, "node %s ended after %d of %d bytes", owner, in.written(), desc.Size)
	}
	return err
}
