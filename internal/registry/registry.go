// Package registry holds the use cases of Ocistern (resolve, fetch, list) behind one interface that gRPC, HTTP and
// tests share. It decides what may be answered from the catalog and what must be refreshed first; it speaks no protocol
// and dials nobody: package fill does that, on the node that owns the key.
package registry

import (
	"context"
	"io"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/reference"
)

// Registry answers callers. All methods are safe for concurrent use, return errors of package errdef, and read one
// snapshot of the catalog per call.
type Registry interface {
	// Resolve tells what a tag or digest points at.
	Resolve(ctx context.Context, principal Principal, target Target) (Resolved, error)
	// FetchManifest returns a manifest, at most the configured size limit.
	FetchManifest(ctx context.Context, principal Principal, target Target) (Manifest, error)
	// FetchBlob opens content by digest at an offset. The caller closes it.
	FetchBlob(ctx context.Context, principal Principal, target Target, offset int64) (*Blob, error)
	// Referrers returns the complete list of referrers of a digest, filtered by artifact type unless that is empty.
	Referrers(ctx context.Context, principal Principal, target Target, artifactType string) (Referrers, error)
	// Tags returns at most limit known tags after last, in byte order.
	Tags(ctx context.Context, principal Principal, target Target, last reference.Tag, limit int) (TagPage, error)
}

// Known answers at once what the catalog knows. Safe for concurrent use.
type Known interface {
	// ResolveKnown is Resolve for many names of one tenant, all from one snapshot, at the level of target. An answer without
	// a digest tells nothing: Resolve may have to ask an upstream, or to refuse. An error is about all.
	ResolveKnown(ctx context.Context, principal Principal, target Target, names []reference.Reference) ([]Resolved, error)
}

// Principal is who asks. Every use case takes it, so that authorization has one place.
type Principal struct {
	Name   string
	Tenant reference.Tenant
}

// Target is what a call is about.
type Target struct {
	// Reference names the repository, and the tag or digest where the call needs one.
	Reference reference.Reference
	// MinIndex is the catalog index the answer must have seen; zero for any.
	MinIndex catalog.LogIndex
	// Level says how current the catalog must be; MaxAge is for LevelBounded.
	Level  Level
	MaxAge time.Duration
}

// Level is a level of consistency (issue 3).
type Level uint8

// The levels. They order what one node does before it answers, not the freshness of what an upstream said.
const (
	// LevelSession answers from what this node has applied, once that has reached MinIndex.
	LevelSession Level = iota
	// LevelLinearizable answers after every write that was acknowledged before the call. It fails with NO_QUORUM.
	LevelLinearizable
	// LevelBounded answers when this node has heard from the leader within MaxAge. It fails with STALE.
	LevelBounded
)

// Resolved is the answer of Resolve.
type Resolved struct {
	Descriptor ocispec.Descriptor
	Provenance Provenance
}

// Manifest is the answer of FetchManifest. Content matches Descriptor.Digest.
type Manifest struct {
	Descriptor ocispec.Descriptor
	Content    []byte
	Provenance Provenance
}

// Blob is the answer of FetchBlob: content from the offset on. When the bytes are still arriving, its last ones are
// withheld until the whole was verified; reads fail with DIGEST_MISMATCH where it was not.
type Blob struct {
	Descriptor ocispec.Descriptor
	Provenance Provenance
	Content    io.ReadCloser
}

// Referrers is the answer of Referrers: always the complete list.
type Referrers struct {
	Descriptors []ocispec.Descriptor
	Provenance  Provenance
}

// TagPage is the answer of Tags.
type TagPage struct {
	Tags       []reference.Tag
	More       bool
	Provenance Provenance
}
