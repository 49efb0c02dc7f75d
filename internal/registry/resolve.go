package registry

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/fill"
	"github.com/ocistern/ocistern/internal/reference"
)

// Resolve implements Registry. A digest may name a manifest or a blob.
func (c *Cache) Resolve(ctx context.Context, principal Principal, target Target) (Resolved, error) {
	v, err := c.begin(ctx, principal, target)
	if err != nil {
		return Resolved{}, err
	}
	var resolved Resolved
	if v.Digest == "" {
		resolved.Descriptor, resolved.Provenance, err = c.resolveTag(ctx, &v)
	} else {
		resolved.Descriptor, resolved.Provenance, err = c.resolveDigest(ctx, &v)
	}
	return resolved, err
}

func (c *Cache) resolveTag(ctx context.Context, v *view) (ocispec.Descriptor, Provenance, error) {
	if pinned, ok := c.Policies.Pinned(v.Repository, v.Tag); ok {
		return c.resolvePinned(ctx, v, pinned)
	}
	return current(ctx, c, v, v.tagKey(), (*view).lookTag)
}

// resolvePinned answers with the manifest that a tag is pinned to, and moves v to its digest. It is fetched where the
// repository is not known to have it: a pin gives no right to content (guarantee G8).
func (c *Cache) resolvePinned(ctx context.Context, v *view, pinned digest.Digest) (ocispec.Descriptor, Provenance, error) {
	tag := v.Tag
	v.Reference = reference.Reference{Repository: v.Repository, Digest: pinned}
	desc, provenance, known := c.lookPinned(v)
	if known {
		return desc, provenance, nil
	}
	manifest, err := c.manifest(ctx, v)
	if err != nil {
		err = errdef.Wrap(errdef.ReasonOf(err), err, "%s:%s is pinned by a policy", v.Repository, tag)
		return ocispec.Descriptor{}, Provenance{}, err
	}
	manifest.Provenance.Why = WhyPinned
	return manifest.Descriptor, manifest.Provenance, nil
}

func (c *Cache) lookPinned(v *view) (ocispec.Descriptor, Provenance, bool) {
	known, ok := v.snapshot.Manifest(v.tenant, v.Repository, v.Digest)
	provenance := c.immutable(v, known.Source)
	provenance.Why = WhyPinned
	return known.Descriptor, provenance, ok
}

func (v *view) tagKey() fill.Key {
	return fill.Key{Tenant: v.tenant, Repository: v.Repository, Kind: fill.KindTag, Reference: string(v.Tag)}
}

func (v *view) lookTag() fact[ocispec.Descriptor] {
	tag, ok := v.snapshot.Tag(v.tenant, v.Repository, v.Tag)
	invalidated := tag.Source == catalog.SourceUpstream && tag.Freshness == catalog.Freshness{} // what it was is no answer
	if ok && !invalidated {
		return fact[ocispec.Descriptor]{value: tag.Descriptor, known: true, source: tag.Source, freshness: tag.Freshness}
	}
	absence, ok := v.snapshot.Absence(v.tenant, v.Repository, catalog.AbsentTag, string(v.Tag))
	return fact[ocispec.Descriptor]{absent: ok, source: catalog.SourceUpstream, freshness: absence.Freshness}
}

// resolveDigest answers from the catalog. What it does not know is fetched: an upstream's word about a digest is not
// taken without its bytes.
func (c *Cache) resolveDigest(ctx context.Context, v *view) (ocispec.Descriptor, Provenance, error) {
	if desc, source, known := c.lookDigest(v); known {
		return desc, c.immutable(v, source), nil
	}
	manifest, err := c.manifest(ctx, v)
	if err == nil || errdef.ReasonOf(err) != errdef.NotFound {
		return manifest.Descriptor, manifest.Provenance, err
	}
	blob, err := c.blob(ctx, v, 0)
	if err != nil {
		return ocispec.Descriptor{}, Provenance{}, err
	}
	return blob.Descriptor, blob.Provenance, blob.Content.Close()
}

// lookDigest looks for what a digest names in the catalog.
func (c *Cache) lookDigest(v *view) (desc ocispec.Descriptor, source catalog.Source, known bool) {
	if manifest, ok := v.snapshot.Manifest(v.tenant, v.Repository, v.Digest); ok {
		return manifest.Descriptor, manifest.Source, true
	}
	linked, ok := v.snapshot.Link(v.tenant, v.Repository, v.Digest)
	return linked, c.sourceOf(v.Repository), ok
}

// ResolveKnown implements Known.
func (c *Cache) ResolveKnown(
	ctx context.Context, principal Principal, target Target, names []reference.Reference,
) ([]Resolved, error) {
	v, err := c.begin(ctx, principal, target)
	if err != nil {
		return nil, err
	}
	answers := make([]Resolved, len(names))
	for i, name := range names {
		v.Reference = name
		if err := c.resolveKnown(&v, &answers[i]); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// resolveKnown answers when nobody has to be asked first, and leaves the answer empty otherwise.
func (c *Cache) resolveKnown(v *view, resolved *Resolved) error {
	pinned, isPinned := c.Policies.Pinned(v.Repository, v.Tag)
	switch {
	case v.Digest != "":
		if desc, source, known := c.lookDigest(v); known {
			*resolved = Resolved{Descriptor: desc, Provenance: c.immutable(v, source)}
		}
	case isPinned:
		v.Digest = pinned
		if desc, provenance, known := c.lookPinned(v); known {
			*resolved = Resolved{Descriptor: desc, Provenance: provenance}
		}
	default:
		tag, key := v.lookTag(), v.tagKey()
		why := atOnce(c, key, &tag)
		if !tag.known || why == "" {
			return nil
		}
		var err error
		resolved.Descriptor, resolved.Provenance, err = answer(c, v, key, &tag, why)
		return err
	}
	return nil
}

// Referrers implements Registry.
func (c *Cache) Referrers(
	ctx context.Context, principal Principal, target Target, artifactType string,
) (Referrers, error) {
	v, err := c.begin(ctx, principal, target)
	if err != nil {
		return Referrers{}, err
	}
	key := fill.Key{Tenant: v.tenant, Repository: v.Repository, Kind: fill.KindReferrers, Reference: v.Digest.String()}
	look := (*view).lookReferrers
	if c.hosted(&v) {
		look = (*view).lookPushedReferrers
	}
	list, provenance, err := current(ctx, c, &v, key, look)
	if err != nil {
		return Referrers{}, err
	}
	return Referrers{Descriptors: v.filter(list, artifactType), Provenance: provenance}, nil
}

// hosted tells whether nobody but this cluster can know referrers of the subject: then those pushed here are all.
func (c *Cache) hosted(v *view) bool {
	if namesHost(v.Repository) || c.Fill.Mirrors(v.Repository) {
		return false
	}
	subject, ok := v.snapshot.Manifest(v.tenant, v.Repository, v.Digest)
	return !ok || subject.Source == catalog.SourcePushed
}

// lookReferrers looks for a list observed at the upstream: without it, those pushed here are not known to be all.
func (v *view) lookReferrers() fact[[]ocispec.Descriptor] {
	list, _ := v.snapshot.Referrers(v.tenant, v.Repository, v.Digest)
	observed := list.Freshness != catalog.Freshness{}
	return fact[[]ocispec.Descriptor]{
		value: list.Descriptors, known: observed, source: catalog.SourceUpstream, freshness: list.Freshness,
	}
}

func (v *view) lookPushedReferrers() fact[[]ocispec.Descriptor] {
	list, _ := v.snapshot.Referrers(v.tenant, v.Repository, v.Digest)
	return fact[[]ocispec.Descriptor]{value: list.Descriptors, known: true, source: catalog.SourcePushed}
}

// filter keeps the referrers of one artifact type. A list from an old upstream may lack the types; the manifests say.
func (v *view) filter(list []ocispec.Descriptor, artifactType string) []ocispec.Descriptor {
	if artifactType == "" {
		return list
	}
	var kept []ocispec.Descriptor
	for _, desc := range list {
		if desc.ArtifactType == "" {
			if known, ok := v.snapshot.Manifest(v.tenant, v.Repository, desc.Digest); ok {
				desc.ArtifactType = known.Descriptor.ArtifactType
			}
		}
		if desc.ArtifactType == artifactType {
			kept = append(kept, desc)
		}
	}
	return kept
}
