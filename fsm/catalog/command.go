package catalog

import (
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/reference"
)

// Command is one change of the catalog. The set is closed: the types of this file.
type Command interface {
	apply(tx *transaction) error
}

// SetCluster names the cluster. It is the first command of a cluster and is refused when another id is set.
type SetCluster struct {
	ClusterID string
}

// Publish makes content of one repository visible, all of it or none. Blobs must be durable on Holder before.
type Publish struct {
	Tenant     reference.Tenant
	Repository reference.Repository
	Source     Source
	Time       time.Time // of the proposer
	Holder     NodeID
	Blobs      []ocispec.Descriptor // durable on Holder; each gets a link from the repository
	Manifests  []Manifest           // their bytes are among Blobs; their children get links too
	Tags       []TagUpdate
	Referrers  []Referrers // complete lists, each replaces what was observed before
}

// TagUpdate moves or refreshes one tag.
type TagUpdate struct {
	Name       reference.Tag
	Descriptor ocispec.Descriptor
	Freshness  Freshness
	// Expect, when not empty, is the digest the tag must point at for the command to apply (compare-and-set);
	// ExpectAbsent demands that there is no such tag.
	Expect       digest.Digest
	ExpectAbsent bool
}

// RecordAbsence records definite 404 answers of an upstream, and removes what the catalog mirrored under these names.
type RecordAbsence struct {
	Tenant     reference.Tenant
	Repository reference.Repository
	Absences   []Absence
}

// AddHolder records that a node has durable copies of blobs the catalog knows. Unknown digests are ignored.
type AddHolder struct {
	Node    NodeID
	Digests []digest.Digest
}

// RemoveHolder records that a node no longer has blobs (evicted, quarantined, or the node was removed: All).
type RemoveHolder struct {
	Node    NodeID
	Digests []digest.Digest
	All     bool
}

// Untag removes a tag. It fails with reason NOT_FOUND when there is none.
type Untag struct {
	Tenant     reference.Tenant
	Repository reference.Repository
	Name       reference.Tag
}

// DeleteManifest removes a manifest, its tags and its place among the referrers of its subject.
type DeleteManifest struct {
	Tenant     reference.Tenant
	Repository reference.Repository
	Digest     digest.Digest
}
