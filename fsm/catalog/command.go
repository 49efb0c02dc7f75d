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

// NoteFormers adds clusters that were recovered, one after the other, as this one: their nodes are kept out for ever. Those
// that are known stay where they are; of more than MaxFormers the oldest are forgotten. It is refused with reason
// COMMAND_INVALID when one of them is empty, too long or this cluster itself.
type NoteFormers struct {
	ClusterIDs []string // oldest first
}

// Publish makes content of one repository visible, all of it or none: what is not among Blobs must be held already.
// An upstream's word never replaces what was pushed. It fails with reason TAG_CONFLICT when a comparison fails, and
// with COMMAND_INVALID when it would name content that no node holds.
type Publish struct {
	Tenant     reference.Tenant
	Repository reference.Repository
	Source     Source
	Time       time.Time            // of the proposer; becomes Tag.Since
	Holder     NodeID               // has all of Blobs, fsynced, before it proposes
	Blobs      []ocispec.Descriptor // of verified size; each gets a link from the repository
	Manifests  []Manifest           // Source is set from above; children get links too, whether held or not
	Tags       []TagUpdate          // a pushed tag must point at a manifest of the repository
	Referrers  []Referrers          // complete lists, each replaces what was observed before
	// Seen is an index that the proposer had seen before it asked the upstream, zero where that does not matter. What was
	// invalidated since is recorded as one that must be asked about again. LevelRequests brought it.
	Seen LogIndex
}

// TagUpdate moves or refreshes one tag.
type TagUpdate struct {
	Name       reference.Tag
	Descriptor ocispec.Descriptor
	Freshness  Freshness
	// Expect, when not empty, is the digest the tag must point at for the command to apply (compare-and-set);
	// ExpectAbsent demands that there is no such tag. At most one of them is set.
	Expect       digest.Digest
	ExpectAbsent bool
}

// RecordAbsence records definite 404 answers of an upstream, and removes what the catalog mirrored under these names.
// What was pushed, and blobs that a node holds for the repository, stay: they are not absent because an upstream
// lacks them.
type RecordAbsence struct {
	Tenant     reference.Tenant
	Repository reference.Repository
	Absences   []Absence
	Seen       LogIndex // as in Publish: an absence that was invalidated since is not recorded
}

// AddHolder records that a node has verified, durable copies of blobs the catalog knows. Unknown digests are ignored:
// the node will learn of them from the Publish that is under way.
type AddHolder struct {
	Node    NodeID
	Digests []digest.Digest
}

// RemoveHolder records that a node no longer has blobs (evicted, quarantined), or none at all (All: the node was
// removed).
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

// DeleteManifest removes a manifest, its link, all tags of the repository that point at it, and its place among the
// pushed referrers of its subject. What it names keeps its links. It fails with reason NOT_FOUND when there is no
// such manifest.
type DeleteManifest struct {
	Tenant     reference.Tenant
	Repository reference.Repository
	Digest     digest.Digest
}
