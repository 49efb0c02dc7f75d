package signed

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
)

// Image tells what to push.
type Image struct {
	Tag string
	// Layers are the sizes of the layers, in bytes.
	Layers []int
	// Seed makes the content of the layers; equal seeds make equal images.
	Seed uint64
	// Signers each add one signature.
	Signers []*Signer
}

// Push pushes an image with its layers, tags and signs it. The layers are incompressible noise.
func Push(ctx context.Context, target oras.GraphTarget, image Image) (ocispec.Descriptor, error) {
	random := rand.NewChaCha8([32]byte{byte(image.Seed), byte(image.Seed >> 8), byte(image.Seed >> 16)})
	var layers []ocispec.Descriptor
	var diffs []digest.Digest
	for _, size := range image.Layers {
		content := make([]byte, size)
		_, _ = random.Read(content) // never fails (math/rand/v2.ChaCha8.Read)
		layer, err := oras.PushBytes(ctx, target, ocispec.MediaTypeImageLayer, content)
		if err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("push a layer: %w", err)
		}
		layers, diffs = append(layers, layer), append(diffs, layer.Digest)
	}
	configuration, err := json.Marshal(ocispec.Image{
		Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: diffs},
	})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("encode the configuration: %w", err)
	}
	config, err := oras.PushBytes(ctx, target, ocispec.MediaTypeImageConfig, configuration)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("push the configuration: %w", err)
	}
	manifest, err := oras.PackManifest(ctx, target, oras.PackManifestVersion1_1, "", oras.PackManifestOptions{
		ConfigDescriptor: &config, Layers: layers,
		ManifestAnnotations: map[string]string{ocispec.AnnotationCreated: "2026-01-01T00:00:00Z"},
	})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("push the manifest: %w", err)
	}
	if err := target.Tag(ctx, manifest, image.Tag); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("tag the image: %w", err)
	}
	for _, signer := range image.Signers {
		if err := signer.Sign(ctx, target, manifest.Digest.String()); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	return manifest, nil
}
