package client

import (
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
)

// Source tells where content comes from.
type Source string

// The sources.
const (
	// SourceUpstream is content mirrored from an upstream registry.
	SourceUpstream Source = "upstream"
	// SourcePushed is content pushed to this cluster.
	SourcePushed Source = "pushed"
	// SourceUnknown is a source that this version of the client does not know.
	SourceUnknown Source = "unknown"
)

// Provenance declares where an answer comes from and how old it is (guarantee G6).
type Provenance struct {
	// CatalogIndex is the index of the catalog that the answer was read at.
	CatalogIndex uint64 `json:"catalogIndex"`
	// Source tells whether the content was mirrored or pushed.
	Source Source `json:"source"`
	// Fresh is false when the upstream should have been asked again but could not be, or is being asked.
	Fresh bool `json:"fresh"`
	// Why is the ground of the answer in one word: fresh, pinned, immutable, pushed, digest, seen, revalidating, or the reason
	// of the failure that a stale answer bridges. Empty when the node is too old to tell.
	Why string `json:"why,omitempty"`
	// StaleReason tells why; empty when Fresh.
	StaleReason string `json:"staleReason,omitempty"`
	// Observed is when the upstream last confirmed the answer; zero for pushed and for immutable content.
	Observed time.Time `json:"observed,omitzero"`
	// AgeSeconds is the time since Observed when the node answered, by its own clock; zero when Observed is.
	AgeSeconds float64 `json:"ageSeconds,omitzero"`
	// Node is the name of the node that answered.
	Node string `json:"node"`
}

// Age is how long before now the upstream last confirmed the answer; zero for pushed and for immutable content. It
// compares the clock of the caller with that of the node; AgeSeconds does not.
func (p Provenance) Age(now time.Time) time.Duration {
	if p.Observed.IsZero() {
		return 0
	}
	return max(0, now.Sub(p.Observed))
}

// Resolution is what a tag or digest points at, with its provenance.
type Resolution struct {
	Descriptor ocispec.Descriptor `json:"descriptor"`
	Provenance Provenance         `json:"provenance"`
}

// ReferrerList is the complete list of the referrers of a subject, with its provenance.
type ReferrerList struct {
	Descriptors []ocispec.Descriptor `json:"referrers"`
	Provenance  Provenance           `json:"provenance"`
}

func provenanceOf(p *registryv1.Provenance) Provenance {
	return Provenance{
		CatalogIndex: p.GetCatalogIndex(), Source: sourceOf(p.GetSource()), Node: p.GetNode(),
		Fresh: p.GetFresh(), StaleReason: p.GetStaleReason(), Why: p.GetWhy(), Observed: timeOf(p.GetObserved()),
		AgeSeconds: p.GetAge().AsDuration().Seconds(),
	}
}

func sourceOf(source registryv1.Source) Source {
	switch source {
	case registryv1.Source_SOURCE_UPSTREAM:
		return SourceUpstream
	case registryv1.Source_SOURCE_PUSHED:
		return SourcePushed
	}
	return SourceUnknown
}

func descriptorOf(d *registryv1.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: d.GetMediaType(), Digest: digest.Digest(d.GetDigest()), Size: d.GetSize(),
		ArtifactType: d.GetArtifactType(), Annotations: d.GetAnnotations(),
	}
}

func descriptorsOf(list []*registryv1.Descriptor) []ocispec.Descriptor {
	descriptors := make([]ocispec.Descriptor, 0, len(list))
	for _, d := range list {
		descriptors = append(descriptors, descriptorOf(d))
	}
	return descriptors
}
