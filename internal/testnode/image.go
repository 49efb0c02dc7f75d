package testnode

import (
	"bytes"
	"context"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
)

// SignatureType is the artifact type of the signatures that PushSigned makes, notation's.
const SignatureType = "application/vnd.cncf.notary.signature"

// PushSigned pushes an image of one layer and so many signatures of it to a repository, tags it, and returns the
// descriptor of its manifest. The same arguments always give the same digests.
func (c *Cluster) PushSigned(
	ctx context.Context, repository, tag string, layer []byte, signatures int,
) (ocispec.Descriptor, error) {
	target := c.Repository(repository)
	created := map[string]string{ocispec.AnnotationCreated: "2026-01-02T03:04:05Z"}
	layerDescriptor := content.NewDescriptorFromBytes(ocispec.MediaTypeImageLayer, layer)
	if err := target.Push(ctx, layerDescriptor, bytes.NewReader(layer)); err != nil {
		return ocispec.Descriptor{}, err
	}
	image, err := oras.PackManifest(ctx, target, oras.PackManifestVersion1_1, "application/vnd.example.image",
		oras.PackManifestOptions{Layers: []ocispec.Descriptor{layerDescriptor}, ManifestAnnotations: created})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := target.Tag(ctx, image, tag); err != nil {
		return ocispec.Descriptor{}, err
	}
	for i := range signatures {
		envelope := fmt.Appendf(nil, "signature %d of %s", i, image.Digest)
		descriptor := content.NewDescriptorFromBytes("application/jose+json", envelope)
		if err := target.Push(ctx, descriptor, bytes.NewReader(envelope)); err != nil {
			return ocispec.Descriptor{}, err
		}
		if _, err := oras.PackManifest(ctx, target, oras.PackManifestVersion1_1, SignatureType, oras.PackManifestOptions{
			Subject: &image, Layers: []ocispec.Descriptor{descriptor}, ManifestAnnotations: created,
		}); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	return image, nil
}
