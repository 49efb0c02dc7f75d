package testnode

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"oras.land/oras-go/v2/content/memory"

	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
)

// Cluster is what a set of test nodes share: content by repository, and the catalog index that they answer from.
type Cluster struct {
	mu           sync.Mutex // guards both
	repositories map[string]*Repository
	index        uint64
}

// NewCluster returns a cluster without content at catalog index 1.
func NewCluster() *Cluster {
	return &Cluster{repositories: map[string]*Repository{}, index: 1}
}

// Repository returns the content of a repository, which is made at first use.
func (c *Cluster) Repository(name string) *Repository {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.repositories[name] == nil {
		c.repositories[name] = &Repository{Store: memory.New()}
	}
	return c.repositories[name]
}

// SetIndex changes the catalog index of the answers.
func (c *Cluster) SetIndex(index uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index = index
}

func (c *Cluster) currentIndex() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index
}

// Repository is the content of one repository, an oras.Target to fill it with. Unlike oras-go's memory store, content
// can be resolved by digest as well, and tags can be listed.
type Repository struct {
	*memory.Store

	mu   sync.Mutex // guards tags
	tags []string
}

// Push implements oras.Target.
func (r *Repository) Push(ctx context.Context, expected ocispec.Descriptor, content io.Reader) error {
	if err := r.Store.Push(ctx, expected, content); err != nil {
		return err
	}
	return r.Store.Tag(ctx, expected, expected.Digest.String())
}

// Tag implements oras.Target.
func (r *Repository) Tag(ctx context.Context, descriptor ocispec.Descriptor, reference string) error {
	if err := r.Store.Tag(ctx, descriptor, reference); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if i, found := slices.BinarySearch(r.tags, reference); !found && reference != descriptor.Digest.String() {
		r.tags = slices.Insert(r.tags, i, reference)
	}
	return nil
}

// Tags returns all tags in byte order.
func (r *Repository) Tags() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.tags)
}

// Observed is when test nodes say that the upstream confirmed their answers.
func Observed() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

// Age is how old every answer is by the node's clock.
const Age = 90 * time.Second

// provenance is that of a fresh answer from upstream.
func (n *Node) provenance() *registryv1.Provenance {
	index := n.cluster.currentIndex()
	n.mu.Lock()
	defer n.mu.Unlock()
	return &registryv1.Provenance{
		CatalogIndex: index - n.lag, Source: registryv1.Source_SOURCE_UPSTREAM, Fresh: true,
		Observed: timestamppb.New(Observed()), Node: n.name, Why: "fresh", Age: durationpb.New(Age),
	}
}

func wire(d ocispec.Descriptor) *registryv1.Descriptor {
	return &registryv1.Descriptor{
		MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size,
		ArtifactType: d.ArtifactType, Annotations: d.Annotations,
	}
}
