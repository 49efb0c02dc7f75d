package catalog

import (
	"iter"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/reference"
)

// Snapshot is the catalog at one index: immutable, safe for concurrent use, valid for as long as it is held. What it
// returns must not be modified.
type Snapshot struct {
	state *state
}

// Index returns the index of the last entry that the snapshot has seen.
func (s *Snapshot) Index() LogIndex { return s.state.index }

// ClusterID returns the id of the cluster, empty before SetCluster.
func (s *Snapshot) ClusterID() string { return s.state.clusterID }

// CommandHash returns the running hash over all commands applied so far.
func (s *Snapshot) CommandHash() [32]byte { return s.state.commandHash }

// Tag returns a tag.
func (s *Snapshot) Tag(t reference.Tenant, r reference.Repository, name reference.Tag) (Tag, bool) {
	return deref(s.state.tags.get(key{t, r, string(name)}))
}

// Manifest returns the record of a manifest.
func (s *Snapshot) Manifest(t reference.Tenant, r reference.Repository, dgst digest.Digest) (Manifest, bool) {
	return deref(s.state.manifests.get(key{t, r, dgst.String()}))
}

// Absence returns a recorded absence, expired or not.
func (s *Snapshot) Absence(t reference.Tenant, r reference.Repository, kind AbsenceKind, ref string) (Absence, bool) {
	return deref(s.state.absences.get(absenceKey(t, r, kind, ref)))
}

// Blob returns where content is held, whatever repositories link to it.
func (s *Snapshot) Blob(dgst digest.Digest) (Blob, bool) {
	return deref(s.state.blobs.get(key{name: dgst.String()}))
}

// Link tells whether a repository may read a blob. The size is the verified one when a Publish has brought the blob,
// else what the manifest that names it claims.
func (s *Snapshot) Link(t reference.Tenant, r reference.Repository, dgst digest.Digest) (ocispec.Descriptor, bool) {
	linked, ok := s.state.links.get(key{t, r, dgst.String()})
	if !ok {
		return ocispec.Descriptor{}, false
	}
	desc := ocispec.Descriptor{MediaType: linked.mediaType, Digest: dgst, Size: linked.size}
	if blob, ok := s.state.blobs.get(key{name: dgst.String()}); ok && blob.Size != UnknownSize {
		desc.Size = blob.Size
	}
	return desc, true
}

// Blobs yields all blobs, in byte order of their digests.
func (s *Snapshot) Blobs() iter.Seq[Blob] {
	return func(yield func(Blob) bool) {
		s.state.blobs.ascend(key{}, func(_ key, b *Blob) bool { return yield(*b) })
	}
}

// Referrers returns the referrers of a subject: what was observed at the upstream, then what was pushed here and was
// not in that list, in byte order of the digests. It returns false when no list was observed and nothing was pushed.
// The Freshness is that of the observed list, so zero for what was only pushed.
func (s *Snapshot) Referrers(t reference.Tenant, r reference.Repository, subject digest.Digest) (Referrers, bool) {
	list, observed := deref(s.state.referrers.get(key{t, r, subject.String()}))
	list.Subject = subject
	if pushed := s.pushedReferrers(t, r, subject); len(pushed) > 0 {
		seen := make(map[digest.Digest]bool, len(list.Descriptors))
		for _, desc := range list.Descriptors {
			seen[desc.Digest] = true
		}
		pushed = slices.DeleteFunc(pushed, func(desc ocispec.Descriptor) bool { return seen[desc.Digest] })
		list.Descriptors = slices.Concat(list.Descriptors, pushed)
	}
	return list, observed || len(list.Descriptors) > 0
}

func (s *Snapshot) pushedReferrers(
	t reference.Tenant, r reference.Repository, subject digest.Digest,
) []ocispec.Descriptor {
	var pushed []ocispec.Descriptor
	from := subjectKey(t, r, subject, "")
	s.state.subjects.ascend(from, func(k key, _ *struct{}) bool {
		referrer, ours := strings.CutPrefix(k.name, from.name)
		if !k.within(t, r) || !ours {
			return false
		}
		if m, ok := s.state.manifests.get(key{t, r, referrer}); ok && m.Source == SourcePushed {
			pushed = append(pushed, m.Descriptor)
		}
		return true
	})
	return pushed
}

// Tags returns at most limit tags of a repository that sort after a name, in byte order.
func (s *Snapshot) Tags(t reference.Tenant, r reference.Repository, after reference.Tag, limit int) []Tag {
	var found []Tag
	s.state.tags.ascend(key{t, r, string(after)}, func(k key, tag *Tag) bool {
		if !k.within(t, r) || len(found) >= limit {
			return false
		}
		if tag.Name != after {
			found = append(found, *tag)
		}
		return true
	})
	return found
}

// Stats counts the records of a catalog.
type Stats struct {
	Tags, Manifests, Referrers, Absences, Links, Blobs int
}

// Count adds one record.
func (s *Stats) Count(r Record) {
	switch {
	case r.Tag != nil:
		s.Tags++
	case r.Manifest != nil:
		s.Manifests++
	case r.Referrers != nil:
		s.Referrers++
	case r.Absence != nil:
		s.Absences++
	case r.Link != nil:
		s.Links++
	case r.Blob != nil:
		s.Blobs++
	}
}

// Stats returns the counts in O(1).
func (s *Snapshot) Stats() Stats {
	return Stats{
		Tags: s.state.tags.len(), Manifests: s.state.manifests.len(), Referrers: s.state.referrers.len(),
		Absences: s.state.absences.len(), Links: s.state.links.len(), Blobs: s.state.blobs.len(),
	}
}

func deref[V any](value *V, ok bool) (V, bool) {
	if !ok {
		var zero V
		return zero, false
	}
	return *value, true
}
