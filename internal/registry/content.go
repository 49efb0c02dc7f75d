package registry

import (
	"context"
	"errors"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/fill"
)

// FetchManifest implements Registry.
func (c *Cache) FetchManifest(ctx context.Context, principal Principal, target Target) (Manifest, error) {
	v, err := c.begin(ctx, principal, target)
	if err != nil {
		return Manifest{}, err
	}
	if v.Digest != "" {
		return c.manifest(ctx, &v)
	}
	desc, provenance, err := c.resolveTag(ctx, &v)
	if err != nil {
		return Manifest{}, err
	}
	body, err := c.readManifest(ctx, &v, &desc, true)
	provenance.Filled = v.filled
	return Manifest{Descriptor: desc, Content: body, Provenance: provenance}, err
}

// manifest reads what v.Digest names as a manifest. That a repository links to the digest is not enough: it may be a
// layer, which only the upstream's manifest endpoint refuses.
func (c *Cache) manifest(ctx context.Context, v *view) (Manifest, error) {
	known, ok := v.snapshot.Manifest(v.tenant, v.Repository, v.Digest)
	if !ok {
		if err := c.fillable(v, catalog.AbsentManifest); err != nil {
			return Manifest{}, err
		}
		known.Descriptor, _ = v.snapshot.Link(v.tenant, v.Repository, v.Digest)
		known.Descriptor.Digest, known.Source = v.Digest, catalog.SourceUpstream
	}
	body, err := c.readManifest(ctx, v, &known.Descriptor, ok)
	return Manifest{Descriptor: known.Descriptor, Content: body, Provenance: c.immutable(v, known.Source)}, err
}

// readManifest reads a whole manifest, at most ManifestBytes. It completes desc where the catalog did not know it.
func (c *Cache) readManifest(ctx context.Context, v *view, desc *ocispec.Descriptor, held bool) ([]byte, error) {
	if err := c.bounded(desc); err != nil {
		return nil, err
	}
	content, err := c.open(ctx, v, fill.ContentManifest, desc, 0, held)
	if err != nil {
		return nil, err
	}
	body, err := c.readAll(content, desc)
	if closeErr := content.Close(); err == nil && closeErr != nil {
		err = errdef.Wrap(errdef.ReasonOf(closeErr), closeErr, "cannot close manifest %s", desc.Digest)
	}
	return body, err
}

func (c *Cache) readAll(content io.Reader, desc *ocispec.Descriptor) ([]byte, error) {
	if err := c.bounded(desc); err != nil {
		return nil, err
	}
	body := make([]byte, desc.Size)
	_, err := io.ReadFull(content, body)
	switch {
	case errors.Is(err, io.EOF) && desc.Size > 0, errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errdef.New(errdef.SizeMismatch, "manifest %s ends before its %d bytes", desc.Digest, desc.Size)
	case err != nil:
		return nil, errdef.Wrap(errdef.ReasonOf(err), err, "cannot read manifest %s", desc.Digest)
	}
	return body, nil
}

func (c *Cache) bounded(desc *ocispec.Descriptor) error {
	if desc.Size > c.ManifestBytes {
		return errdef.New(errdef.ManifestTooLarge, "manifest %s has %d bytes", desc.Digest, desc.Size).
			WithRemedy("at most %d (limits.manifest-bytes)", c.ManifestBytes)
	}
	return nil
}

// FetchBlob implements Registry. It fails with reason RANGE_INVALID for an offset at which there is no byte, except
// the start of empty content.
func (c *Cache) FetchBlob(ctx context.Context, principal Principal, target Target, offset int64) (*Blob, error) {
	v, err := c.begin(ctx, principal, target)
	if err != nil {
		return nil, err
	}
	return c.blob(ctx, &v, offset)
}

func (c *Cache) blob(ctx context.Context, v *view, offset int64) (*Blob, error) {
	desc, linked := v.snapshot.Link(v.tenant, v.Repository, v.Digest)
	kind, source := fill.ContentBlob, c.sourceOf(v.Repository)
	if known, ok := v.snapshot.Manifest(v.tenant, v.Repository, v.Digest); ok {
		kind, source = fill.ContentManifest, known.Source
	}
	if !linked {
		if err := c.fillable(v, catalog.AbsentBlob); err != nil {
			return nil, err
		}
		desc = ocispec.Descriptor{Digest: v.Digest, Size: -1}
	}
	content, err := c.open(ctx, v, kind, &desc, offset, linked)
	if err != nil {
		return nil, err
	}
	return &Blob{Descriptor: desc, Provenance: c.immutable(v, source), Content: content}, nil
}

// fillable refuses to fetch a digest that the repository's catalog does not know when no upstream could have it, or
// when the upstream has said lately that it does not.
func (c *Cache) fillable(v *view, kind catalog.AbsenceKind) error {
	if !c.Fill.Mirrors(v.Repository) {
		return missing(v.Reference)
	}
	absence, ok := v.snapshot.Absence(v.tenant, v.Repository, kind, v.Digest.String())
	if ok && c.Clock().Before(absence.Freshness.FreshUntil) {
		return errdef.New(errdef.NotFound, "the upstream has no %s", v.Reference)
	}
	return nil
}

// open opens content at an offset: this node's own when the repository has the right to it (held), else through a fill,
// which also heals what this node has lost. It completes desc with the size.
func (c *Cache) open(
	ctx context.Context, v *view, kind fill.ContentKind, desc *ocispec.Descriptor, offset int64, held bool,
) (io.ReadCloser, error) {
	if held {
		content, err := c.Store.Open(desc.Digest)
		if err == nil {
			desc.Size = content.Size()
			return seek(content, desc, offset)
		}
		if reason := errdef.ReasonOf(err); reason != errdef.NotFound && reason != errdef.ContentCorrupt {
			return nil, err
		}
	}
	v.filled = true
	key := fill.ContentKey{Tenant: v.tenant, Repository: v.Repository, Kind: kind, Digest: desc.Digest}
	stream, err := c.Fill.Fetch(ctx, key, offset)
	if err != nil {
		return nil, err
	}
	desc.Size = stream.Descriptor.Size
	if desc.MediaType == "" {
		desc.MediaType = stream.Descriptor.MediaType
	}
	if err := inside(desc, offset); err != nil {
		return nil, errors.Join(err, stream.Close())
	}
	return stream, nil
}

func seek(content io.ReadSeekCloser, desc *ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	err := inside(desc, offset)
	if err == nil && offset > 0 {
		_, err = content.Seek(offset, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, content.Close())
	}
	return content, nil
}

func inside(desc *ocispec.Descriptor, offset int64) error {
	if offset < 0 || offset >= desc.Size && offset > 0 {
		return errdef.New(errdef.RangeInvalid, "offset %d is outside of the %d bytes of %s", offset, desc.Size, desc.Digest)
	}
	return nil
}
