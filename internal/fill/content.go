package fill

import (
	"context"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Fetch opens content at an offset: from this node's disk when the repository has a link to it, else from a holder,
// else from the upstream, once for all callers. The stream follows the bytes as they arrive, its last ones come when
// the whole was verified, and it ends with ctx. What arrives is made durable and published even when all callers have
// left.
//
// Content that this node holds for another repository is asked for at the upstream all the same: only the upstream can
// say that this repository has it (guarantee G8).
//
// It fails as Refresh does, but for what cannot be published: verified content is answered without a quorum.
func (f *Filler) Fetch(ctx context.Context, key ContentKey, offset int64) (*Stream, error) {
	u, path, err := f.upstreamOf(key.Tenant, key.Repository)
	if err != nil {
		return nil, err
	}
	found := f.linked(f.Catalog.Snapshot(), key)
	avoided := found != nil
	if found == nil {
		found, avoided, err = f.contents.join(ctx, key, func(life context.Context, pilot pilot[*arrival]) (*arrival, error) {
			in := &intake{store: f.Store, pilot: pilot, key: key}
			flight := &contentFlight{Filler: f, intake: in, upstream: u, path: path}
			return flight.run(life)
		})
	}
	if avoided {
		f.Observer.Avoided(u.name)
	}
	if err != nil {
		return nil, err
	}
	return found.stream(ctx, offset)
}

// linked opens content that is on this node's disk and that the repository may read; nil when it must be fetched.
func (f *Filler) linked(snapshot *catalog.Snapshot, key ContentKey) *arrival {
	desc, ok := key.link(snapshot)
	if !ok {
		return nil
	}
	return held(f.Store, desc)
}

// link tells whether the repository is known to have the content. A manifest must be known as one.
func (k ContentKey) link(snapshot *catalog.Snapshot) (ocispec.Descriptor, bool) {
	desc, ok := snapshot.Link(k.Tenant, k.Repository, k.Digest)
	if ok && k.Kind == ContentManifest {
		_, ok = shapeOf(desc.MediaType)
	}
	return desc, ok
}

// holders returns the other nodes that have content which the repository may read, and its descriptor. The size is
// negative while only a manifest has claimed one: what a holder has was verified, and may be what the claim was not.
func (k ContentKey) holders(snapshot *catalog.Snapshot, self catalog.NodeID) (ocispec.Descriptor, []catalog.NodeID) {
	desc, ok := k.link(snapshot)
	if !ok {
		return desc, nil
	}
	blob, _ := snapshot.Blob(k.Digest)
	desc.Size = blob.Size
	return desc, slices.DeleteFunc(slices.Clone(blob.Holders), func(node catalog.NodeID) bool { return node == self })
}

func (k ContentKey) absenceKind() catalog.AbsenceKind {
	if k.Kind == ContentManifest {
		return catalog.AbsentManifest
	}
	return catalog.AbsentBlob
}

// contentFlight is one flight for content on its owner.
type contentFlight struct {
	*Filler
	*intake
	upstream *upstream
	path     string
}

// run fetches, verifies, makes durable and publishes. An error after the content was announced reaches those who read
// along through the ingest; one after it was verified harms no caller and goes to the log.
func (c *contentFlight) run(life context.Context) (*arrival, error) {
	snapshot := c.Catalog.Snapshot()
	if found := c.linked(snapshot, c.key); found != nil {
		c.Observer.Avoided(c.upstream.name)
		return found, nil // the flight before has just ended
	}
	err := c.absent(snapshot, c.key.Tenant, c.key.Repository, c.key.absenceKind(), c.key.Digest.String())
	if err != nil {
		return nil, err
	}
	if proof, ok := c.proofs.get(c.key); ok {
		if found := held(c.Store, proof.Blobs[0]); found != nil {
			c.Observer.Avoided(c.upstream.name)
			c.announce(found)
			c.publishContent(life, proof)
			return nil, nil
		}
	}
	command, err := c.receive(life, snapshot)
	if err != nil {
		c.fail(err)
		return nil, err
	}
	if err := c.later.persist(life, c.Ingest); err != nil {
		c.Logger.Error("fetched content is not durable", "digest", c.key.Digest, "repository", c.key.Repository, "error", err)
		return nil, nil
	}
	c.later.wait(life)
	c.publishContent(life, command)
	return nil, nil
}

// receive takes the content in and verifies it. It returns the command that publishes it.
func (c *contentFlight) receive(life context.Context, snapshot *catalog.Snapshot) (catalog.Publish, error) {
	observed := c.Clock()
	desc, nodes := c.key.holders(snapshot, c.Self)
	if len(nodes) > 0 {
		err := c.fromHolders(life, c.Holders, desc, nodes)
		if err == nil {
			return c.published(c.key.Tenant, c.key.Repository, c.Descriptor(), observed), nil
		}
		c.Logger.Warn("no holder could give content", "digest", c.key.Digest, "repository", c.key.Repository, "error", err)
	}
	command, err := c.fromUpstream(life, observed)
	if errdef.ReasonOf(err) == errdef.NotFound {
		absence := c.absence(c.key.Tenant, c.key.Repository, c.key.absenceKind(), c.key.Digest.String(), observed)
		absence.Seen = c.stated(snapshot.Index())
		if _, failed := c.publish(life, absence); failed != nil {
			c.Logger.Warn("an absence is not recorded", "digest", c.key.Digest, "repository", c.key.Repository, "error", failed)
		}
	}
	return command, err
}

func (c *contentFlight) fromUpstream(life context.Context, observed time.Time) (catalog.Publish, error) {
	if c.key.Kind == ContentBlob {
		desc, err := c.blob(life)
		return c.published(c.key.Tenant, c.key.Repository, desc, observed), err
	}
	ctx, cancel := context.WithTimeout(life, c.Timings.Metadata)
	defer cancel()
	desc, body, err := c.upstream.manifest(ctx, c.path, c.key.Digest.String())
	if err != nil {
		return catalog.Publish{}, err
	}
	manifest, err := parseManifest(desc, body)
	if err != nil {
		return catalog.Publish{}, errdef.Wrap(errdef.ReasonOf(err), err, "upstream %s, %s", c.upstream.name, c.path)
	}
	command := c.published(c.key.Tenant, c.key.Repository, desc, observed)
	command.Manifests = []catalog.Manifest{manifest}
	if err := c.begin(desc, func() error { return stopped(ctx) }); err != nil {
		return command, err
	}
	for again := true; again && err == nil; {
		resumed := c.written()
		if _, err := c.Write(body[min(resumed, desc.Size):]); err != nil {
			return command, err
		}
		again, err = c.settle(resumed > 0)
	}
	return command, err
}

// publishContent publishes content that was answered already. Without a quorum the proof is kept, so that the next
// request publishes it without asking the upstream again.
func (c *contentFlight) publishContent(life context.Context, command catalog.Publish) {
	if _, err := c.publish(life, command); err != nil {
		c.proofs.put(c.key, command)
		c.Logger.Warn("content is not published", "digest", c.key.Digest, "repository", c.key.Repository, "error", err)
		return
	}
	c.proofs.remove(c.key)
}
