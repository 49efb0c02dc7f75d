package catalog

import (
	"crypto/sha256"
	"encoding/json"
	"iter"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// Record is one record of a snapshot; exactly one of its pointers is set. Blobs and what follows belong to no tenant and
// repository.
type Record struct {
	Tenant       reference.Tenant
	Repository   reference.Repository
	Tag          *Tag          `json:",omitempty"`
	Manifest     *Manifest     `json:",omitempty"`
	Referrers    *Referrers    `json:",omitempty"`
	Absence      *Absence      `json:",omitempty"`
	Link         *Link         `json:",omitempty"`
	Blob         *Blob         `json:",omitempty"`
	Outcome      *Outcome      `json:",omitempty"`
	Backoff      *Backoff      `json:",omitempty"`
	Invalidation *Invalidation `json:",omitempty"`
}

// Link is a repository's right to read a blob.
type Link struct {
	Digest    digest.Digest
	MediaType string
	Size      int64 // as claimed by the manifest that names it, or verified
}

// Header returns what a snapshot of the catalog carries beside its records.
func (s *Snapshot) Header() Header {
	return Header{
		Index: s.state.index, ClusterID: s.state.clusterID, CommandHash: s.state.commandHash, Level: s.state.level,
		Forgotten: s.state.outcomes.forgotten, Formers: s.state.formers,
	}
}

// Records yields every record in canonical order: the same catalog always yields the same sequence.
func (s *Snapshot) Records() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		_ = each(s.state.tags, yield, func(r *Record, _ key, v *Tag) { r.Tag = v }) &&
			each(s.state.manifests, yield, func(r *Record, _ key, v *Manifest) { r.Manifest = v }) &&
			each(s.state.referrers, yield, func(r *Record, _ key, v *Referrers) { r.Referrers = v }) &&
			each(s.state.absences, yield, func(r *Record, _ key, v *Absence) { r.Absence = v }) &&
			each(s.state.links, yield, func(r *Record, k key, v *link) {
				r.Link = &Link{Digest: digest.Digest(k.name), MediaType: v.mediaType, Size: v.size}
			}) &&
			each(s.state.blobs, yield, func(r *Record, _ key, v *Blob) { r.Blob = v }) &&
			s.eachOutcome(yield) &&
			each(s.state.backoffs, yield, func(r *Record, _ key, v *Backoff) { r.Backoff = v }) &&
			s.eachInvalidation(yield)
	}
}

func (s *Snapshot) eachOutcome(yield func(Record) bool) bool {
	for i := range s.state.outcomes.recent {
		if !yield(Record{Outcome: &s.state.outcomes.recent[i]}) {
			return false
		}
	}
	return true
}

func (s *Snapshot) eachInvalidation(yield func(Record) bool) bool {
	for i := range s.state.invalidations {
		if !yield(Record{Invalidation: &s.state.invalidations[i]}) {
			return false
		}
	}
	return true
}

func each[V any](t tree[V], yield func(Record) bool, fill func(*Record, key, *V)) bool {
	more := true
	t.ascend(key{}, func(k key, value *V) bool {
		record := Record{Tenant: k.tenant, Repository: k.repository}
		fill(&record, k, value)
		more = yield(record)
		return more
	})
	return more
}

// WithHolders returns the record without the holders for which keep is false. The record itself is not changed.
func (r Record) WithHolders(keep func(NodeID) bool) Record {
	if r.Blob == nil || !slices.ContainsFunc(r.Blob.Holders, func(id NodeID) bool { return !keep(id) }) {
		return r
	}
	blob := *r.Blob
	blob.Holders = nil
	for _, holder := range r.Blob.Holders {
		if keep(holder) {
			blob.Holders = append(blob.Holders, holder)
		}
	}
	r.Blob = &blob
	return r
}

// restore puts a record into a state that is being built. Link counts and the index of subjects are derived again.
func (r Record) restore(s *state) error {
	tx := &transaction{state: s}
	at := func(name string) key { return key{r.Tenant, r.Repository, name} }
	switch {
	case r.Tag != nil:
		s.tags.set(at(string(r.Tag.Name)), r.Tag)
	case r.Manifest != nil:
		s.manifests.set(at(r.Manifest.Descriptor.Digest.String()), r.Manifest)
		if r.Manifest.Subject != "" {
			s.subjects.set(subjectKey(r.Tenant, r.Repository, r.Manifest.Subject, r.Manifest.Descriptor.Digest), &struct{}{})
		}
	case r.Referrers != nil:
		s.referrers.set(at(r.Referrers.Subject.String()), r.Referrers)
	case r.Absence != nil:
		tx.setAbsence(absenceKey(r.Tenant, r.Repository, r.Absence.Kind, r.Absence.Reference), r.Absence)
	case r.Link != nil:
		s.links.set(at(r.Link.Digest.String()), &link{mediaType: r.Link.MediaType, size: r.Link.Size})
		tx.changeBlob(r.Link.Digest, func(b *Blob) { b.Links++ })
	case r.Blob != nil:
		tx.changeBlob(r.Blob.Digest, func(b *Blob) { b.Size, b.Holders = r.Blob.Size, r.Blob.Holders })
	case r.Outcome != nil:
		if _, twice := s.outcomes.find(r.Outcome.ID); twice || len(s.outcomes.recent) == MaxOutcomes {
			return errdef.New(errdef.SnapshotInvalid, "outcome %s is one too many", r.Outcome.ID)
		}
		s.outcomes.remember(*r.Outcome)
	case r.Backoff != nil:
		s.backoffs.set(key{name: r.Backoff.Upstream}, r.Backoff)
	case r.Invalidation != nil:
		s.invalidations.remember(*r.Invalidation)
	default:
		return errdef.New(errdef.SnapshotInvalid, "record of no known kind")
	}
	return nil
}

// Digest returns a SHA-256 over the cluster id, above level 1 the feature level and the bounds of what is remembered, the
// former clusters, and all records in canonical order. It costs time in proportion to the catalog; catalogs that are equal
// have equal digests, whatever commands led to them.
func (s *Snapshot) Digest() (digest.Digest, error) {
	sum := sha256.New()
	encoder := json.NewEncoder(sum)
	if err := encoder.Encode(s.state.clusterID); err != nil {
		return "", errdef.Wrap(errdef.Internal, err, "catalog digest")
	}
	if s.FeatureLevel() > LevelFirst { // else as builds that know no levels do it
		if err := encoder.Encode([]uint64{uint64(s.FeatureLevel()), uint64(s.state.outcomes.forgotten)}); err != nil {
			return "", errdef.Wrap(errdef.Internal, err, "catalog digest")
		}
	}
	if formers := s.Formers(); len(formers) > 0 {
		if err := encoder.Encode(formers); err != nil {
			return "", errdef.Wrap(errdef.Internal, err, "catalog digest")
		}
	}
	for record := range s.Records() {
		if err := encoder.Encode(record); err != nil {
			return "", errdef.Wrap(errdef.Internal, err, "catalog digest")
		}
	}
	return digest.NewDigest(digest.SHA256, sum), nil
}
