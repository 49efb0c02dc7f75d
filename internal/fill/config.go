package fill

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/budget"
	"github.com/ocistern/ocistern/internal/credential"
	"github.com/ocistern/ocistern/internal/egress"
	"github.com/ocistern/ocistern/internal/policy"
)

// Upstream is one registry that may be asked. Upstreams are an allow-list: none is ever dialled from a caller's input.
type Upstream struct {
	// Name is the first segment of the names of the repositories that mirror it, for example ghcr.io.
	Name string
	// URL is where it is reached: scheme and host, HTTPS unless it says http://. Empty means https://Name.
	URL string
	// Credential is what it is shown when it asks, for each tenant. Empty means nothing.
	Credential credential.Config
	// TLS has further authorities and the node's certificate for it.
	TLS egress.TLS
	// Allow has addresses that are not public and where it may send us to: redirects and token services. It itself may
	// be anywhere. Over plain HTTP only these are reached besides itself.
	Allow []netip.Prefix
	// Limits are what the whole cluster may ask of it. Without a concurrency, DefaultConcurrency.
	Limits budget.Limits
}

// DefaultConcurrency is how many requests may be in flight to an upstream for which nothing else is configured.
const DefaultConcurrency = 32

// Timings bounds how long the parts of a flight may take. A zero field takes the default.
type Timings struct {
	// Metadata is for one tag, manifest or referrers list, all pages, retries and token requests included. Default 20 s.
	Metadata time.Duration
	// Stall is how long a blob may make no progress; a blob has no total deadline. Default 20 s.
	Stall time.Duration
	// Publish is for one command until it is applied on this node. Default 10 s.
	Publish time.Duration
}

// FillerConfig is what a Filler needs. All fields without a stated default are required.
type FillerConfig struct {
	Catalog  *catalog.Catalog
	Store    *blobstore.Store
	Proposer Proposer
	Holders  Holders
	Self     catalog.NodeID
	// Upstreams may be empty; then every fill fails with reason UPSTREAM_UNKNOWN.
	Upstreams []Upstream
	// Policies say how long the answers about a repository may be used: a refresh writes the times into the catalog. Nil is
	// the default for all.
	Policies *policy.Set
	// ManifestBytes bounds a manifest, and all pages of a referrers list together. Default 4 MiB.
	ManifestBytes int64
	Timings       Timings
	Clock         func() time.Time
	Logger        *slog.Logger
	Observer      Observer
	// Nodes returns how many nodes share what upstreams bear; nil for this one alone.
	Nodes func() int
}

// DefaultManifestBytes is the limit of a manifest where none is configured.
const DefaultManifestBytes = 4 << 20

// Proposer submits a command to the replicated log and returns the index of its entry after commit.
type Proposer interface {
	Apply(ctx context.Context, command catalog.Command) (catalog.LogIndex, error)
}

// Holders reads content from nodes that have it on disk, from an offset; it never makes them ask an upstream.
type Holders interface {
	FetchHeld(ctx context.Context, node catalog.NodeID, dgst digest.Digest, offset int64) (io.ReadCloser, int64, error)
}

// Observer counts. Its methods are called from many goroutines and must not block.
type Observer interface {
	// UpstreamRequest is called after each HTTP request, retries included. operation is manifest, blob, referrers, token
	// or redirect; err is nil when the upstream answered below 400, or 404.
	UpstreamRequest(upstream, operation string, err error)
	// Avoided is called for each caller that needed an answer of the upstream and got it without a request of its own.
	Avoided(upstream string)
}

// Members knows who is in the cluster.
type Members interface {
	Self() catalog.NodeID
	// Living returns the members that are alive, sorted, this node included.
	Living() []catalog.NodeID
}

// Peers asks other nodes to fill. A node that cannot be reached is reason UNAVAILABLE.
type Peers interface {
	Refresh(ctx context.Context, node catalog.NodeID, key Key, seen catalog.LogIndex) (catalog.LogIndex, error)
	FetchContent(ctx context.Context, node catalog.NodeID, key ContentKey, offset int64) (*Stream, error)
}
