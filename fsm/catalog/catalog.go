// Package catalog is the pure state machine of Ocistern: the replicated OCI index of tags, manifests, referrers,
// absences, blob links and blob holders, keyed by tenant and repository.
//
// It does no I/O, reads no clock, draws no random numbers and logs nothing: the same commands in the same order give
// the same catalog on every node. Package fsm feeds it from Raft; readers take a Snapshot, an immutable tree behind
// one atomic pointer, in O(1) and never wait for the writer.
package catalog

import (
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/reference"
)

// NodeID names one node for ever: it is drawn once, kept on the node's disk and never used again after that disk is
// lost.
type NodeID string

// LogIndex is the index of an entry in the Raft log. A catalog index is the LogIndex of the last entry applied to it.
type LogIndex uint64

// Source tells how the catalog learned a fact.
type Source uint8

// The sources. Their numbers are part of the log format.
const (
	SourceUpstream Source = 1 // observed at an upstream registry
	SourcePushed   Source = 2 // pushed to this cluster
)

// Freshness bounds the use of something observed at an upstream. A pushed fact has no bounds (zero times).
type Freshness struct {
	Observed   time.Time // when the upstream said so, by the clock of the node that asked
	FreshUntil time.Time // until then it is answered without asking again
	StaleUntil time.Time // until then it may be answered, declared stale, when the upstream cannot be asked
}

// Tag is what a tag points at.
type Tag struct {
	Name       reference.Tag
	Descriptor ocispec.Descriptor
	Source     Source
	Freshness  Freshness
	Since      time.Time  // when it came to point there, by the clock of the proposer
	Revision   LogIndex   // entry that last changed the target
	By         NodeID     `json:",omitempty"` // which learned that; empty below LevelRequests
	History    []TagEvent `json:",omitempty"` // earlier targets, oldest first, at most MaxTagHistory
}

// TagEvent is one former target of a tag, with the Since, Revision and By that the tag had then. An empty digest is an
// absence at the upstream.
type TagEvent struct {
	Digest   digest.Digest
	Since    time.Time
	Revision LogIndex
	By       NodeID `json:",omitempty"`
}

// Manifest is a manifest (or image index) of a repository. Its bytes are content like any other, in the blobstore.
type Manifest struct {
	Descriptor ocispec.Descriptor   // with ArtifactType and Annotations as a referrers list shows them
	Subject    digest.Digest        // empty without a subject
	Children   []ocispec.Descriptor `json:",omitempty"`
	Source     Source
}

// Referrers is the state of the referrers list of one subject. The list itself is complete when such a record exists.
type Referrers struct {
	Subject     digest.Digest
	Descriptors []ocispec.Descriptor `json:",omitempty"` // observed at the upstream, in its order
	Freshness   Freshness
}

// AbsenceKind tells what is absent.
type AbsenceKind uint8

// The kinds of absence. Their numbers are part of the log format.
const (
	AbsentTag      AbsenceKind = 1
	AbsentManifest AbsenceKind = 2
	AbsentBlob     AbsenceKind = 3
)

// Absence records that an upstream gave a definite 404. Referrers have none: an empty complete list says it.
type Absence struct {
	Kind      AbsenceKind
	Reference string // tag or digest
	Freshness Freshness
	// History is that of a tag that was there before, and ends with the event of the absence itself: a tag that comes back
	// goes on with it. Commands leave it empty; below LevelRequests there is none.
	History []TagEvent `json:",omitempty"`
}

// Blob is content by digest, whatever repositories link to it. Manifests are blobs too.
type Blob struct {
	Digest  digest.Digest
	Size    int64    // verified; UnknownSize until a Publish brought it
	Holders []NodeID `json:",omitempty"` // sorted
	Links   int64    // (tenant, repository) pairs that link to it
}

const (
	// MaxTagHistory bounds the history of a tag.
	MaxTagHistory = 32
	// UnknownSize is the size of a blob that manifests name and no Publish has brought yet.
	UnknownSize = -1
)
