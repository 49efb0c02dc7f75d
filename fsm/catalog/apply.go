package catalog

import (
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/errdef"
)

func (c SetCluster) apply(tx *transaction) error {
	if c.ClusterID == "" {
		return errdef.New(errdef.CommandInvalid, "the cluster id is empty")
	}
	if tx.clusterID != "" && tx.clusterID != c.ClusterID {
		return errdef.New(errdef.ClusterMismatch, "this is cluster %s, not %s", tx.clusterID, c.ClusterID)
	}
	tx.clusterID = c.ClusterID
	return nil
}

func (c Publish) apply(tx *transaction) error {
	if err := c.validate(); err != nil {
		return err
	}
	if err := tx.readable(&c); err != nil {
		return err
	}
	outdated := tx.outdated(c.Seen, c.Tenant, c.Repository)
	for _, update := range c.Tags {
		if err := tx.compare(&c, update); err != nil {
			return err
		}
	}
	for _, blob := range c.Blobs {
		tx.addLink(c.Tenant, c.Repository, blob)
		tx.clearAbsence(absenceKey(c.Tenant, c.Repository, AbsentBlob, blob.Digest.String()))
		tx.changeBlob(blob.Digest, func(b *Blob) {
			b.Size, b.Holders = blob.Size, withHolder(b.Holders, c.Holder)
		})
	}
	for _, manifest := range c.Manifests {
		manifest.Source = c.Source
		tx.putManifest(c.Tenant, c.Repository, manifest)
	}
	for _, update := range c.Tags {
		if outdated {
			update.Freshness = Freshness{}
		}
		tx.moveTag(&c, update)
	}
	for _, list := range c.Referrers {
		if outdated {
			break
		}
		tx.referrers.set(key{c.Tenant, c.Repository, list.Subject.String()}, &list)
	}
	return nil
}

// readable refuses what would be visible without being readable (guarantee G3): a manifest whose bytes no node holds
// for this repository, and a pushed tag without its manifest. An upstream's tag may do without: it can be fetched by
// digest.
func (tx *transaction) readable(p *Publish) error {
	brought := map[digest.Digest]bool{}
	for _, blob := range p.Blobs {
		brought[blob.Digest] = true
	}
	published := map[digest.Digest]bool{}
	for _, manifest := range p.Manifests {
		dgst := manifest.Descriptor.Digest
		if !brought[dgst] && !tx.held(p.Tenant, p.Repository, dgst) {
			return errdef.New(errdef.CommandInvalid, "publish: no node holds manifest %s", dgst).
				WithRemedy("make it durable and list it among the blobs")
		}
		published[dgst] = true
	}
	if p.Source != SourcePushed {
		return nil
	}
	for _, update := range p.Tags {
		dgst := update.Descriptor.Digest
		if _, known := tx.manifests.get(key{p.Tenant, p.Repository, dgst.String()}); !known && !published[dgst] {
			return errdef.New(errdef.CommandInvalid, "publish: tag %s points at %s, which is no manifest of %s",
				update.Name, dgst, p.Repository)
		}
	}
	return nil
}

// compare decides the compare-and-set of a tag.
func (tx *transaction) compare(p *Publish, update TagUpdate) error {
	if update.Expect == "" && !update.ExpectAbsent {
		return nil
	}
	known, ok := tx.tags.get(key{p.Tenant, p.Repository, string(update.Name)})
	switch {
	case update.ExpectAbsent && ok:
		return errdef.New(errdef.TagConflict, "tag %s exists and points at %s", update.Name, known.Descriptor.Digest)
	case update.Expect != "" && !ok:
		return errdef.New(errdef.TagConflict, "tag %s does not exist", update.Name)
	case update.Expect != "" && known.Descriptor.Digest != update.Expect:
		return errdef.New(errdef.TagConflict, "tag %s points at %s, not at %s",
			update.Name, known.Descriptor.Digest, update.Expect)
	}
	return nil
}

func (c RecordAbsence) apply(tx *transaction) error {
	if err := c.validate(); err != nil {
		return err
	}
	if tx.outdated(c.Seen, c.Tenant, c.Repository) {
		return nil
	}
	for _, absence := range c.Absences {
		tx.pruneAbsences(absence.Freshness.Observed)
		absence.History = tx.historyOf(&c, absence)
		if tx.dropMirrored(&c, absence) {
			tx.setAbsence(absenceKey(c.Tenant, c.Repository, absence.Kind, absence.Reference), &absence)
		}
	}
	return nil
}

// dropMirrored removes what an absence contradicts. It returns false, and removes nothing, when the cluster knows
// better.
func (tx *transaction) dropMirrored(c *RecordAbsence, absence Absence) bool {
	k := key{c.Tenant, c.Repository, absence.Reference}
	switch absence.Kind {
	case AbsentTag:
		if known, ok := tx.tags.get(k); ok && known.Source == SourcePushed {
			return false
		}
		tx.tags.remove(k)
	case AbsentManifest:
		known, ok := tx.manifests.get(k)
		if ok && known.Source == SourcePushed {
			return false
		}
		if ok {
			tx.dropManifest(c.Tenant, c.Repository, known)
		}
	case AbsentBlob:
		return !tx.held(c.Tenant, c.Repository, digest.Digest(absence.Reference))
	}
	return true
}

func (c AddHolder) apply(tx *transaction) error {
	if err := validateHolder(c.Node, c.Digests); err != nil {
		return err
	}
	for _, dgst := range c.Digests {
		if _, ok := tx.blobs.get(key{name: dgst.String()}); ok {
			tx.changeBlob(dgst, func(b *Blob) { b.Holders = withHolder(b.Holders, c.Node) })
		}
	}
	return nil
}

func (c RemoveHolder) apply(tx *transaction) error {
	if err := validateHolder(c.Node, c.Digests); err != nil {
		return err
	}
	digests := c.Digests
	if c.All { // costs time in proportion to the catalog; nodes are removed rarely
		digests = nil
		tx.blobs.ascend(key{}, func(_ key, b *Blob) bool {
			if _, holds := slices.BinarySearch(b.Holders, c.Node); holds {
				digests = append(digests, b.Digest)
			}
			return true
		})
	}
	for _, dgst := range digests {
		if _, ok := tx.blobs.get(key{name: dgst.String()}); ok {
			tx.changeBlob(dgst, func(b *Blob) { b.Holders = withoutHolder(b.Holders, c.Node) })
		}
	}
	return nil
}

func (c Untag) apply(tx *transaction) error {
	k := key{c.Tenant, c.Repository, string(c.Name)}
	if _, ok := tx.tags.get(k); !ok {
		return errdef.New(errdef.NotFound, "no tag %s in %s", c.Name, c.Repository)
	}
	tx.tags.remove(k)
	return nil
}

func (c DeleteManifest) apply(tx *transaction) error {
	known, ok := tx.manifests.get(key{c.Tenant, c.Repository, c.Digest.String()})
	if !ok {
		return errdef.New(errdef.NotFound, "no manifest %s in %s", c.Digest, c.Repository)
	}
	var tags []key
	tx.tags.ascend(key{c.Tenant, c.Repository, ""}, func(k key, t *Tag) bool {
		if !k.within(c.Tenant, c.Repository) {
			return false
		}
		if t.Descriptor.Digest == c.Digest {
			tags = append(tags, k)
		}
		return true
	})
	for _, k := range tags {
		tx.tags.remove(k)
	}
	tx.dropManifest(c.Tenant, c.Repository, known)
	return nil
}
