// Package fill asks upstream registries, once for the whole cluster: the owner of a key runs one flight, hands verified
// bytes to whoever waits, makes them durable and then publishes them through Raft.
//
// A Filler does this on the owner; a Router finds the owner among the living members and is what package registry
// calls. Nothing here answers callers or decides whether a cached answer may be used: package registry does.
package fill

import (
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/ownership"
	"github.com/ocistern/ocistern/internal/reference"
)

// Kind tells which mutable fact a Key names.
type Kind uint8

// The kinds of mutable facts.
const (
	KindTag       Kind = 1
	KindReferrers Kind = 2
)

// Key names something mutable at an upstream: a tag, or the referrers list of a subject.
type Key struct {
	Tenant     reference.Tenant
	Repository reference.Repository
	Kind       Kind
	Reference  string // tag, or digest of the subject
}

// subject returns whose referrers a key of KindReferrers names.
func (k Key) subject() digest.Digest { return digest.Digest(k.Reference) }

// owners ranks nodes for a mutable fact.
func (k Key) owners(nodes []catalog.NodeID) []catalog.NodeID {
	if k.Kind == KindReferrers {
		return ownership.Rank(ownership.Referrers(k.Tenant, k.Repository, k.subject()), nodes)
	}
	return ownership.Rank(ownership.Tag(k.Tenant, k.Repository, k.Reference), nodes)
}

// ContentKind tells how an upstream serves content: manifests and blobs have different endpoints.
type ContentKind uint8

// The kinds of content.
const (
	ContentManifest ContentKind = 1
	ContentBlob     ContentKind = 2
)

// ContentKey names immutable content of a repository.
type ContentKey struct {
	Tenant     reference.Tenant
	Repository reference.Repository
	Kind       ContentKind
	Digest     digest.Digest
}

// owners ranks nodes for content.
func (k ContentKey) owners(nodes []catalog.NodeID) []catalog.NodeID {
	if k.Kind == ContentManifest {
		return ownership.Rank(ownership.Manifest(k.Tenant, k.Repository, k.Digest), nodes)
	}
	return ownership.Rank(ownership.Blob(k.Tenant, k.Repository, k.Digest), nodes)
}

// Stream is content from the offset that was asked for. The caller closes it. Descriptor has at least the digest and
// the whole size. The last bytes come only after the whole was verified.
type Stream struct {
	io.ReadCloser
	Descriptor ocispec.Descriptor
}
