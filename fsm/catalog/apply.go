package catalog

import (
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
	for _, update := range c.Tags {
		if err := tx.compare(&c, update); err != nil {
			return err
		}
	}
	for _, blob := range c.Blobs {
		tx.addLink(c.Tenant, c.Repository, blob)
		tx.changeBlob(blob.Digest, func(b *Blob) {
			b.Size, b.Holders = blob.Size, withHolder(b.Holders, c.Holder)
		})
	}
	for _, manifest := range c.Manifests {
		manifest.Source = c.Source
		tx.putManifest(c.Tenant, c.Repository, manifest)
	}
	for _, update := range c.Tags {
		tx.moveTag(&c, update)
	}
	for _, list := range c.Referrers {
		tx.referrers.set(key{c.Tenant, c.Repository, list.Subject.String()}, &list)
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
		return errdef.New(errdef.TagConflict, "tag %s points at %s, not at %s", update.Name, known.Descriptor.Digest, update.Expect)
	}
	return nil
}

func (c RecordAbsence) apply(tx *transaction) error {
	if err := c.validate(); err != nil {
		return err
	}
	for _, absence := range c.Absences {
		tx.pruneAbsences(c.Tenant, c.Repository, absence.Freshness.Observed)
		k := key{c.Tenant, c.Repository, absence.Reference}
		switch absence.Kind {
		case AbsentTag:
			known, ok := tx.tags.get(k)
			if ok && known.Source == SourcePushed {
				continue // what was pushed here is not absent because an upstream lacks it
			}
			tx.tags.remove(k)
		case AbsentManifest:
			known, ok := tx.manifests.get(k)
			if ok && known.Source == SourcePushed {
				continue
			}
			if ok {
				tx.dropManifest(c.Tenant, c.Repository, known)
			}
		}
		tx.absences.set(absenceKey(c.Tenant, c.Repository, absence.Kind, absence.Reference), &absence)
	}
	return nil
}

func (c AddHolder) apply(tx *transaction) error {
	if err := validateHolder(c.Node, c.Digests); err != nil {
		return err
	}
	for _, dgst := range c.Digests {
		if known, ok := tx.blobs.get(key{name: dgst.String()}); ok && known.Size != unknownSize {
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
	if c.All {
		tx.blobs.ascend(key{}, func(_ key, b *Blob) bool {
			if len(withoutHolder(b.Holders, c.Node)) != len(b.Holders) {
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
		if k.tenant != c.Tenant || k.repository != c.Repository {
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
