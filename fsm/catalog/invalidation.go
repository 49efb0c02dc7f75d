package catalog

import (
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// Invalidate makes what upstreams said about some names need to be asked again before it is answered: neither fresh nor
// stale answers are left, and absences are gone. The history of the tags stays, and so does content, which is named by
// its digest. What was pushed here is not touched. It belongs to LevelRequests.
//
// An answer that an upstream gave before is no better when it arrives after: see Publish.Seen.
type Invalidate struct {
	Tenant reference.Tenant
	// Repository is the one meant; with Below, all repositories whose names begin with it and a slash are meant instead.
	Repository reference.Repository
	Below      bool
	// Digest limits it to one digest: its referrers, the tags that are made of it (the referrers tag, cosign's), its absence.
	// Tag limits it to one tag, and the digest that it points at. At most one of them is set, and neither with Below.
	Tag    reference.Tag
	Digest digest.Digest
}

// Invalidation is an Invalidate that is remembered for the answers that were under way. Tag and digest are not: to ask once
// more about another name of the repository costs a request, never a wrong answer.
type Invalidation struct {
	Tenant     reference.Tenant     // empty for all
	Repository reference.Repository // empty for all
	Below      bool                 `json:",omitempty"`
	Index      LogIndex
}

// MaxInvalidations is how many invalidations are remembered. Older ones count as one of everything: a flight that is as old
// as that costs one request more.
const MaxInvalidations = 1024

func (c Invalidate) validate() error {
	if err := validateName(c.Tenant, c.Repository, 0); err != nil {
		return err
	}
	if c.Below && (c.Tag != "" || c.Digest != "") || c.Tag != "" && c.Digest != "" {
		return errdef.New(errdef.CommandInvalid, "invalidate: repositories, a tag or a digest, not several of them")
	}
	var err error
	switch {
	case c.Tag != "":
		_, err = reference.ParseTag(string(c.Tag))
	case c.Digest != "":
		_, err = reference.ParseDigest(c.Digest.String())
	}
	if err != nil {
		return errdef.Wrap(errdef.CommandInvalid, err, "invalidate")
	}
	return nil
}

func (c Invalidate) apply(tx *transaction) error {
	if err := c.validate(); err != nil {
		return err
	}
	tags, subjects, absences := c.found(tx)
	for _, k := range tags {
		known, _ := tx.tags.get(k)
		expired := *known
		expired.Freshness = Freshness{}
		tx.tags.set(k, &expired)
	}
	for _, k := range subjects {
		tx.referrers.remove(k)
	}
	for _, k := range absences {
		tx.forgetAbsence(k)
	}
	tx.invalidations.remember(Invalidation{Tenant: c.Tenant, Repository: c.Repository, Below: c.Below, Index: tx.index})
	return nil
}

// found returns the keys of what is meant: mirrored tags, observed referrers lists, absences.
func (c Invalidate) found(tx *transaction) (tags, subjects, absences []key) {
	target, whole := c.Digest, c.Tag == "" && c.Digest == ""
	if known, ok := tx.tags.get(key{c.Tenant, c.Repository, string(c.Tag)}); ok {
		target = known.Descriptor.Digest
	}
	// The referrers tag of a digest, and cosign's tags, begin with it.
	companions := strings.Replace(target.String(), ":", "-", 1)
	named := func(name string) bool {
		return whole || name == string(c.Tag) ||
			target != "" && (name == target.String() || strings.HasPrefix(name, companions))
	}
	ascendRepositories(tx.tags, c, func(k key, tag *Tag) {
		if tag.Source != SourcePushed && named(string(tag.Name)) {
			tags = append(tags, k)
		}
	})
	ascendRepositories(tx.referrers, c, func(k key, list *Referrers) {
		if named(list.Subject.String()) {
			subjects = append(subjects, k)
		}
	})
	ascendRepositories(tx.absences, c, func(k key, absence *Absence) {
		if named(absence.Reference) {
			absences = append(absences, k)
		}
	})
	return tags, subjects, absences
}

// ascendRepositories visits the records of the repositories that an Invalidate means.
func ascendRepositories[V any](t tree[V], c Invalidate, visit func(key, *V)) {
	from := key{tenant: c.Tenant, repository: c.Repository}
	if c.Below {
		from.repository += "/"
	}
	t.ascend(from, func(k key, value *V) bool {
		if !(Invalidation{Tenant: c.Tenant, Repository: c.Repository, Below: c.Below}).covers(k.tenant, k.repository) {
			return false
		}
		visit(k, value)
		return true
	})
}

func (i Invalidation) covers(t reference.Tenant, r reference.Repository) bool {
	switch {
	case i.Repository == "":
		return true
	case i.Tenant != t:
		return false
	case i.Below:
		return strings.HasPrefix(string(r), string(i.Repository)+"/")
	}
	return r == i.Repository
}

// invalidations are in the order of their indexes. What is in the slice is never changed, so a frozen state shares it with
// the writer.
type invalidations []Invalidation

func (i *invalidations) remember(next Invalidation) {
	recent := *i
	if len(recent) >= MaxInvalidations { // the two oldest become one of everything
		merged := make(invalidations, 0, MaxInvalidations)
		recent = append(append(merged, Invalidation{Index: recent[1].Index}), recent[2:]...)
	}
	*i = append(recent, next)
}

// since tells whether something about a repository was invalidated after an index.
func (i invalidations) since(seen LogIndex, t reference.Tenant, r reference.Repository) bool {
	for at := len(i) - 1; at >= 0 && i[at].Index > seen; at-- {
		if i[at].covers(t, r) {
			return true
		}
	}
	return false
}

// outdated tells whether an upstream gave an answer before the repository was invalidated. An observation that does not say
// what it had seen is taken as it is.
func (tx *transaction) outdated(seen LogIndex, t reference.Tenant, r reference.Repository) bool {
	return seen != 0 && tx.invalidations.since(seen, t, r)
}

// Invalidated tells whether what an upstream said about a repository, as asked by somebody who had seen index seen, was
// invalidated since.
func (s *Snapshot) Invalidated(t reference.Tenant, r reference.Repository, seen LogIndex) bool {
	return s.state.invalidations.since(seen, t, r)
}
