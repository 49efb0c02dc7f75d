package registry

import (
	"context"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/fill"
	"github.com/ocistern/ocistern/internal/policy"
	"github.com/ocistern/ocistern/internal/reference"
)

// Store is this node's content. It fails with reason NOT_FOUND for what it does not hold, and CONTENT_CORRUPT for what
// it no longer holds because the bytes had rotted.
type Store interface {
	Open(dgst digest.Digest) (*blobstore.Content, error)
}

// Fill gets what this node lacks: from other nodes, and for mirrored repositories from the upstream.
type Fill interface {
	// Mirrors tells whether a repository names a configured upstream.
	Mirrors(repository reference.Repository) bool
	// Refresh asks the upstream about something mutable, unless a catalog newer than seen already answers. It returns
	// the catalog index at which the outcome can be read, and reason NOT_FOUND only for a definite absence.
	Refresh(ctx context.Context, key fill.Key, seen catalog.LogIndex) (catalog.LogIndex, error)
	// Fetch opens immutable content at an offset.
	Fetch(ctx context.Context, key fill.ContentKey, offset int64) (*fill.Stream, error)
}

// Consensus tells how current this node's catalog is.
type Consensus interface {
	// ReadIndex returns the catalog index that a linearizable read must have seen.
	ReadIndex(ctx context.Context) (catalog.LogIndex, error)
	// ContactAge returns how long ago this node last heard from a leader.
	ContactAge() time.Duration
}

// Config is what a Cache works with. The fields up to Ready are required.
type Config struct {
	Catalog *catalog.Catalog
	Store   Store
	Fill    Fill
	// Consensus is asked for LevelLinearizable and LevelBounded only.
	Consensus Consensus
	// Policies say which tags are pinned or immutable, and when an answer is renewed in the background. Nil is the default
	// for all.
	Policies *policy.Set
	// Node is the name of this node, as answers declare it.
	Node string
	// Ready fails with reason NOT_READY until this node may answer. It is asked on every call.
	Ready func() error
	// Clock decides what is fresh; time.Now when nil.
	Clock func() time.Time
	// ManifestBytes bounds a manifest; 4 MiB when zero.
	ManifestBytes int64
	// RefreshWait bounds how long a call waits for a refresh when it could give a stale answer instead; 2 s when zero.
	RefreshWait time.Duration
}

// Cache answers from the replicated catalog and the content of this node, and asks Fill for what is missing or stale.
// An answer from the catalog takes no lock, calls no other node and allocates nothing that grows with the catalog.
type Cache struct {
	Config
	revalidations *revalidations
}

var _ Registry = (*Cache)(nil)

// New returns a Cache. It needs no closing: what it asks in the background ends with Fill.
func New(config Config) *Cache {
	if config.Clock == nil {
		config.Clock = time.Now
	}
	if config.ManifestBytes == 0 {
		config.ManifestBytes = 4 << 20
	}
	if config.RefreshWait == 0 {
		config.RefreshWait = 2 * time.Second
	}
	if config.Policies == nil {
		config.Policies = policy.Defaults()
	}
	return &Cache{Config: config, revalidations: newRevalidations(config.Fill)}
}

// view is one call: what it asks, whose it is, and the one snapshot that answers it. A refresh moves the call to a
// later snapshot, for the whole answer.
type view struct {
	reference.Reference
	tenant   reference.Tenant
	snapshot *catalog.Snapshot
	filled   bool
}

// begin takes the snapshot of a call, waiting until the catalog has seen the index that the caller has seen before.
func (c *Cache) begin(ctx context.Context, principal Principal, target Target) (view, error) {
	if err := c.Ready(); err != nil {
		return view{}, err
	}
	index, err := c.reach(ctx, target)
	if err != nil {
		return view{}, err
	}
	snapshot := c.Catalog.Snapshot()
	if snapshot.Index() < index {
		if snapshot, err = c.Catalog.Wait(ctx, index); err != nil {
			return view{}, err
		}
	}
	return view{Reference: target.Reference, tenant: principal.Tenant, snapshot: snapshot}, nil
}

// reach returns the index that the catalog must have reached for the level of a call.
func (c *Cache) reach(ctx context.Context, target Target) (catalog.LogIndex, error) {
	switch target.Level {
	case LevelLinearizable:
		index, err := c.Consensus.ReadIndex(ctx)
		return max(index, target.MinIndex), err
	case LevelBounded:
		if age := c.Consensus.ContactAge(); age > target.MaxAge {
			return 0, errdef.New(errdef.Stale, "node %s heard from a leader %s ago, %s is allowed",
				c.Node, age.Round(time.Millisecond), target.MaxAge).WithRemedy("ask another node, or allow more")
		}
	}
	return target.MinIndex, nil
}

// immutable declares an answer that can never become stale: what a digest names.
func (c *Cache) immutable(v *view, source catalog.Source) Provenance {
	return Provenance{
		Index: v.snapshot.Index(), Source: source, Fresh: true, Why: WhyDigest, Node: c.Node, Filled: v.filled,
	}
}

// sourceOf tells where the content of a repository comes from when no record says it.
func (c *Cache) sourceOf(repository reference.Repository) catalog.Source {
	if c.Fill.Mirrors(repository) {
		return catalog.SourceUpstream
	}
	return catalog.SourcePushed
}

// missing is the error for what the catalog of a repository without an upstream does not have. A name that looks like
// that of a registry is most likely a mirror which nobody configured: to call its content absent would be a lie.
func missing(ref reference.Reference) error {
	if namesHost(ref.Repository) {
		return upstreamUnknown(ref.Repository)
	}
	return errdef.New(errdef.NotFound, "%s is not in this cluster", ref)
}

func upstreamUnknown(repository reference.Repository) error {
	host, _ := repository.UpstreamHost()
	return errdef.New(errdef.UpstreamUnknown, "%s names the upstream %q, which is not configured", repository, host).
		WithRemedy("configure it on every node: --upstream %s=https://%s", host, host)
}

// namesHost tells whether the first of several segments looks like the host name of a registry.
func namesHost(repository reference.Repository) bool {
	host, rest := repository.UpstreamHost()
	return rest != "" && (host == "localhost" || strings.Contains(host, "."))
}

// maxTags bounds a page of tags.
const maxTags = 1000

// Tags implements Registry. For a mirrored repository it lists what the cluster has seen so far, and says so.
func (c *Cache) Tags(
	ctx context.Context, principal Principal, target Target, last reference.Tag, limit int,
) (TagPage, error) {
	v, err := c.begin(ctx, principal, target)
	if err != nil {
		return TagPage{}, err
	}
	limit = max(0, min(limit, maxTags))
	found := v.snapshot.Tags(v.tenant, v.Repository, last, limit+1)
	page := TagPage{More: len(found) > limit, Provenance: c.immutable(&v, c.sourceOf(v.Repository))}
	page.Provenance.Why = WhyPushed
	switch {
	case page.Provenance.Source == catalog.SourceUpstream:
		page.Provenance.Fresh, page.Provenance.Why, page.Provenance.StaleReason = false, WhySeen, tagsSeen
	case len(found) == 0 && namesHost(v.Repository):
		return TagPage{}, upstreamUnknown(v.Repository)
	}
	page.Tags = make([]reference.Tag, 0, min(limit, len(found)))
	for _, tag := range found[:cap(page.Tags)] {
		page.Tags = append(page.Tags, tag.Name)
	}
	return page, nil
}

// tagsSeen is the stale reason of a mirrored repository's list of tags.
const tagsSeen = "lists only the tags seen so far"
