package catalog

import (
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/reference"
)

// transaction is the writer's view while one entry is applied. A command checks everything before its first change,
// so that it applies whole or not at all.
type transaction struct {
	*state
	index LogIndex
}

// link is a repository's right to read a blob, with the descriptor as the repository knows it.
type link struct {
	mediaType string
	size      int64
}

// held tells whether a repository may read a blob and a node has it.
func (tx *transaction) held(t reference.Tenant, r reference.Repository, dgst digest.Digest) bool {
	if _, linked := tx.links.get(key{t, r, dgst.String()}); !linked {
		return false
	}
	known, ok := tx.blobs.get(key{name: dgst.String()})
	return ok && len(known.Holders) > 0
}

// addLink lets a repository read a blob. The last media type that somebody named wins.
func (tx *transaction) addLink(t reference.Tenant, r reference.Repository, desc ocispec.Descriptor) {
	k := key{t, r, desc.Digest.String()}
	known, linked := tx.links.get(k)
	if linked && (known.mediaType == desc.MediaType || desc.MediaType == "") {
		return
	}
	tx.links.set(k, &link{mediaType: desc.MediaType, size: desc.Size})
	if !linked {
		tx.changeBlob(desc.Digest, func(b *Blob) { b.Links++ })
	}
}

func (tx *transaction) removeLink(t reference.Tenant, r reference.Repository, dgst digest.Digest) {
	k := key{t, r, dgst.String()}
	if _, linked := tx.links.get(k); !linked {
		return
	}
	tx.links.remove(k)
	tx.changeBlob(dgst, func(b *Blob) { b.Links-- })
}

// changeBlob replaces the record of a blob by a changed copy, making it when there is none, and drops a record that
// nothing refers to any more.
func (tx *transaction) changeBlob(dgst digest.Digest, change func(*Blob)) {
	k := key{name: dgst.String()}
	next := Blob{Digest: dgst, Size: UnknownSize}
	if known, ok := tx.blobs.get(k); ok {
		next = *known
	}
	change(&next)
	if next.Links == 0 && len(next.Holders) == 0 {
		tx.blobs.remove(k)
		return
	}
	tx.blobs.set(k, &next)
}

// withHolder returns holders with node in its place; the given slice is not changed.
func withHolder(holders []NodeID, node NodeID) []NodeID {
	at, found := slices.BinarySearch(holders, node)
	if found {
		return holders
	}
	return slices.Insert(slices.Clone(holders), at, node)
}

// withoutHolder returns holders without node, nil for none; the given slice is not changed.
func withoutHolder(holders []NodeID, node NodeID) []NodeID {
	at, found := slices.BinarySearch(holders, node)
	if !found {
		return holders
	}
	if len(holders) == 1 {
		return nil
	}
	return slices.Delete(slices.Clone(holders), at, at+1)
}

func subjectKey(t reference.Tenant, r reference.Repository, subject, referrer digest.Digest) key {
	return key{t, r, subject.String() + " " + referrer.String()}
}

func (tx *transaction) putManifest(t reference.Tenant, r reference.Repository, m Manifest) {
	k := key{t, r, m.Descriptor.Digest.String()}
	if known, ok := tx.manifests.get(k); ok {
		if known.Source == SourcePushed {
			m.Source = SourcePushed // seen at an upstream too, but ours
		}
		tx.subjects.remove(subjectKey(t, r, known.Subject, known.Descriptor.Digest))
	}
	tx.manifests.set(k, &m)
	tx.addLink(t, r, m.Descriptor)
	for _, child := range m.Children {
		tx.addLink(t, r, child)
	}
	if m.Subject != "" {
		tx.subjects.set(subjectKey(t, r, m.Subject, m.Descriptor.Digest), &struct{}{})
	}
	tx.clearAbsence(absenceKey(t, r, AbsentManifest, m.Descriptor.Digest.String()))
}

func (tx *transaction) dropManifest(t reference.Tenant, r reference.Repository, m *Manifest) {
	tx.manifests.remove(key{t, r, m.Descriptor.Digest.String()})
	tx.removeLink(t, r, m.Descriptor.Digest)
	tx.subjects.remove(subjectKey(t, r, m.Subject, m.Descriptor.Digest))
}
