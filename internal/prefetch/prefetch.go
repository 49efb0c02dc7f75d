// Package prefetch asks ahead for what a verifier asks next: the referrers of what it has just resolved, their manifests and
// small blobs, and the referrers of these. A verification that asks seventeen questions one after the other then waits for
// four.
//
// It is a registry.Registry around another one, and asks that one as any caller does: what may be answered, what is fresh,
// and that an upstream is asked once, is decided there. It answers nothing itself, keeps nothing, and never makes a caller
// wait. Package node puts it between the use cases and the protocols.
package prefetch

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/policy"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
)

const (
	// maxWalks bounds the walks of one upstream at one time on this node. A call beyond that is answered all the same.
	maxWalks = 32
	// maxParallel bounds what all walks ask of one upstream at one time, from this node: with the default concurrency less
	// than its share. Callers may have to wait behind so many requests, and no more.
	maxParallel = 8
	// maxObjects and maxBytes bound one walk: an upstream can name referrers without end.
	maxObjects = 256
	maxBytes   = 64 << 20
	// walkTime bounds one walk; its flights have time-outs of their own, and go on without it.
	walkTime = time.Minute
	// answerFirst is how long a walk lets the answer that begins it go ahead, which wants the same processors.
	answerFirst = 2 * time.Millisecond
)

// Config is what prefetching needs; all of it.
type Config struct {
	// Policies say how far to walk and how large the objects may be, per repository.
	Policies *policy.Set
	// Mirrors tells whether a repository has a configured upstream. What was pushed here needs no prefetch.
	Mirrors func(reference.Repository) bool
	// Listed tells whether the referrers of a subject are known, fresh or not.
	Listed   func(tenant reference.Tenant, repository reference.Repository, subject digest.Digest) bool
	Observer Observer
	Logger   *slog.Logger
}

// Observer counts. Its methods are called from many goroutines and must not block.
type Observer interface {
	// WalkBegan is called before each walk, WalkEnded after it.
	WalkBegan(upstream string)
	WalkEnded(walk Walk)
	// WalkRefused is called instead when too many are under way.
	WalkRefused(upstream string)
}

// Walk is one walk that has ended.
type Walk struct {
	Upstream   string
	Repository reference.Repository
	// Root is where it began.
	Root digest.Digest
	// Objects and Bytes count what an upstream or another node was asked for. Referrers lists are objects without bytes.
	Objects int
	Bytes   int64
	// Err is why it ended before its end; errors about single objects do not end it.
	Err error
}

// Ahead answers as the registry inside of it does, and asks ahead. It is safe for concurrent use.
type Ahead struct {
	registry.Registry
	Config
	life    context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	// mu guards what follows.
	mu     sync.Mutex
	closed bool
	walks  map[string]int // under way, by upstream
	slots  map[string]chan struct{}
	claims map[claim]bool
}

// claim is an object that a walk under way has come by: no other walk needs to.
type claim struct {
	tenant     reference.Tenant
	repository reference.Repository
	digest     digest.Digest
}

var _ registry.Registry = (*Ahead)(nil)

// New returns an Ahead around a registry.
func New(inner registry.Registry, config Config) *Ahead {
	life, stop := context.WithCancel(context.Background())
	return &Ahead{
		Registry: inner, Config: config, life: life, stop: stop,
		walks: map[string]int{}, slots: map[string]chan struct{}{}, claims: map[claim]bool{},
	}
}

// Close ends all walks and waits for them. Calls go on to be answered.
func (a *Ahead) Close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.stop()
	a.running.Wait()
}

// asked tells whether an upstream has just answered for an answer: then a verifier's next question will need it, too. What
// was in the catalog was walked around when it came there, or will be when somebody asks for what it names; and an upstream
// that was asked in vain is not asked for more.
func asked(answer registry.Provenance) bool { return answer.Filled && answer.Fresh }

// Resolve implements registry.Registry.
func (a *Ahead) Resolve(ctx context.Context, principal registry.Principal, target registry.Target) (registry.Resolved, error) {
	resolved, err := a.Registry.Resolve(ctx, principal, target)
	if err == nil && asked(resolved.Provenance) {
		a.begin(principal, origin{named: target.Reference, root: resolved.Descriptor})
	}
	return resolved, err
}

// FetchManifest implements registry.Registry.
func (a *Ahead) FetchManifest(ctx context.Context, principal registry.Principal, target registry.Target) (registry.Manifest, error) {
	manifest, err := a.Registry.FetchManifest(ctx, principal, target)
	if err == nil && asked(manifest.Provenance) {
		a.begin(principal, origin{named: target.Reference, root: manifest.Descriptor})
	}
	return manifest, err
}

// Referrers implements registry.Registry. A verifier that was given a digest begins here.
func (a *Ahead) Referrers(
	ctx context.Context, principal registry.Principal, target registry.Target, artifactType string,
) (registry.Referrers, error) {
	list, err := a.Registry.Referrers(ctx, principal, target, artifactType)
	if err == nil && asked(list.Provenance) {
		a.begin(principal, origin{
			named: target.Reference, root: ocispec.Descriptor{Digest: target.Reference.Digest},
			listed: artifactType == "", referrers: list.Descriptors,
		})
	}
	return list, err
}

// origin is where a walk begins.
type origin struct {
	named     reference.Reference
	root      ocispec.Descriptor // only with a digest, where a caller has asked for its referrers
	listed    bool               // the referrers of the root are known: those that follow
	referrers []ocispec.Descriptor
}

// begin starts a walk unless its root is in one, or too many are under way. It does not wait.
func (a *Ahead) begin(principal registry.Principal, from origin) {
	repository := from.named.Repository
	rules := a.Policies.For(repository)
	if rules.PrefetchDepth == 0 || !a.Mirrors(repository) {
		return
	}
	upstream, _ := repository.UpstreamHost()
	w := &walk{ahead: a, inner: a.Registry, principal: principal, repository: repository, largest: rules.PrefetchBytes}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.claims[w.claim(from.root.Digest)] {
		return
	}
	if a.walks[upstream] >= maxWalks {
		a.Observer.WalkRefused(upstream)
		return
	}
	if a.slots[upstream] == nil {
		a.slots[upstream] = make(chan struct{}, maxParallel)
	}
	w.slots = a.slots[upstream]
	a.walks[upstream]++
	w.take(from.root.Digest)
	a.Observer.WalkBegan(upstream)
	a.running.Go(func() { a.run(w, upstream, from, rules.PrefetchDepth) })
}

func (a *Ahead) run(w *walk, upstream string, from origin, depth int) {
	ctx, cancel := context.WithTimeout(a.life, walkTime)
	defer cancel()
	select {
	case <-time.After(answerFirst):
	case <-ctx.Done():
	}
	err := w.from(ctx, from, depth)
	a.mu.Lock()
	for _, dgst := range w.claimed {
		delete(a.claims, w.claim(dgst))
	}
	if a.walks[upstream]--; a.walks[upstream] == 0 {
		delete(a.walks, upstream)
	}
	ended := Walk{
		Upstream: upstream, Repository: w.repository, Root: from.root.Digest, Objects: w.objects, Bytes: w.bytes, Err: err,
	}
	a.mu.Unlock()
	a.Observer.WalkEnded(ended)
	a.Logger.Debug("fetched ahead", "repository", ended.Repository, "root", ended.Root, "objects", ended.Objects,
		"bytes", ended.Bytes, "error", err)
}

// aboutOne tells whether an error is about one object: then the others are asked for all the same.
func aboutOne(err error) bool {
	switch errdef.ReasonOf(err) {
	case errdef.NotFound, errdef.ManifestInvalid, errdef.ManifestTooLarge, errdef.MediaTypeInvalid, errdef.DigestMismatch,
		errdef.SizeMismatch, errdef.UpstreamInvalid:
		return true
	}
	return false
}
