package client

import (
	"context"
	"encoding/json"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/ocistern/ocistern/internal/errdef"
)

const (
	// prefetchDepth is how far referrers of referrers are followed: an image, its attestations, their signatures, and
	// room to spare. An upstream can make the chain as long as it likes.
	prefetchDepth = 5
	// prefetchParallel is how many artifacts are read at once.
	prefetchParallel = 8
)

// Prefetched counts what Prefetch read.
type Prefetched struct {
	// Descriptor is what the reference points at.
	Descriptor ocispec.Descriptor `json:"descriptor"`
	// Referrers counts the artifacts found around it, those that refer to referrers included.
	Referrers int `json:"referrers"`
	// Blobs counts the small blobs read; Large those left alone, since verifiers do not read them.
	Blobs int `json:"blobs"`
	Large int `json:"large"`
	// Bytes sums the sizes of manifests and blobs read.
	Bytes int64 `json:"bytes"`
}

// Prefetch reads what a verifier of ref will ask for: the manifest, its referrers and theirs, the manifests of all
// these and their blobs up to 256 KiB. Afterwards the cluster answers these from its own copy. Manifests listed in an
// image index are not followed. progress, unless nil, is called for each artifact read, from one goroutine at a time.
func (r *Repository) Prefetch(ctx context.Context, ref string, progress func(ocispec.Descriptor)) (Prefetched, error) {
	root, content, err := r.FetchReference(ctx, ref)
	if err != nil {
		return Prefetched{}, err
	}
	manifest, err := io.ReadAll(content)
	if err != nil {
		return Prefetched{}, err
	}
	p := &prefetch{repository: r, progress: progress, visited: map[digest.Digest]bool{root.Digest: true}}
	p.counted.Descriptor, p.counted.Bytes = root, root.Size
	level, err := p.artifact(ctx, root, manifest)
	for depth := 1; err == nil && len(level) > 0 && depth < prefetchDepth; depth++ {
		level, err = p.level(ctx, level)
	}
	return p.counted, err
}

type prefetch struct {
	repository *Repository
	progress   func(ocispec.Descriptor)

	mu      sync.Mutex // guards counted, visited and calls of progress
	counted Prefetched
	visited map[digest.Digest]bool
}

// level reads artifacts at the same distance from the root and returns those one step further.
func (p *prefetch) level(ctx context.Context, artifacts []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	found := make([][]ocispec.Descriptor, len(artifacts))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(prefetchParallel)
	for i, descriptor := range artifacts {
		group.Go(func() error {
			manifest, err := p.repository.fetchManifest(ctx, descriptor)
			if err != nil {
				return err
			}
			p.count(func(counted *Prefetched) { counted.Referrers++; counted.Bytes += descriptor.Size })
			found[i], err = p.artifact(ctx, descriptor, manifest)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var next []ocispec.Descriptor
	for _, referrers := range found {
		next = append(next, referrers...)
	}
	return next, nil
}

// artifact reads the small blobs of one manifest and returns the referrers that were not seen before.
func (p *prefetch) artifact(
	ctx context.Context, subject ocispec.Descriptor, manifest []byte,
) ([]ocispec.Descriptor, error) {
	var parts struct {
		Config *ocispec.Descriptor  `json:"config"`
		Layers []ocispec.Descriptor `json:"layers"`
		Blobs  []ocispec.Descriptor `json:"blobs"`
	}
	if err := json.Unmarshal(manifest, &parts); err != nil {
		return nil, errdef.Wrap(errdef.ManifestInvalid, err, "manifest %s is not JSON", subject.Digest)
	}
	blobs := append(parts.Layers, parts.Blobs...)
	if parts.Config != nil {
		blobs = append(blobs, *parts.Config)
	}
	if err := p.blobs(ctx, blobs); err != nil {
		return nil, err
	}
	list, err := p.repository.ReferrersDetailed(ctx, subject, "")
	if err != nil {
		return nil, err
	}
	var next []ocispec.Descriptor
	for _, referrer := range list.Descriptors {
		if p.first(referrer.Digest) {
			next = append(next, referrer)
		}
	}
	p.count(func(*Prefetched) {
		if p.progress != nil {
			p.progress(subject)
		}
	})
	return next, nil
}

func (p *prefetch) blobs(ctx context.Context, blobs []ocispec.Descriptor) error {
	for _, blob := range blobs {
		switch {
		case !p.first(blob.Digest):
		case blob.Size > smallBytes:
			p.count(func(counted *Prefetched) { counted.Large++ })
		default:
			content, err := p.repository.Fetch(ctx, blob)
			if err != nil {
				return err
			}
			if err := content.Close(); err != nil {
				return err
			}
			p.count(func(counted *Prefetched) { counted.Blobs++; counted.Bytes += blob.Size })
		}
	}
	return nil
}

// first reports whether content is seen for the first time.
func (p *prefetch) first(dgst digest.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.visited[dgst]
	p.visited[dgst] = true
	return !seen
}

func (p *prefetch) count(add func(*Prefetched)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	add(&p.counted)
}
