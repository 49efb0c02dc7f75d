package client

import (
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// isManifest reports whether content of this media type is fetched as a manifest, as oras-go decides it.
func isManifest(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex,
		"application/vnd.oci.artifact.manifest.v1+json",
		"application/vnd.docker.distribution.manifest.v2+json",
		"application/vnd.docker.distribution.manifest.list.v2+json":
		return true
	default:
		return false
	}
}

// verify checks whole content against its descriptor (guarantee G4).
func verify(content []byte, want ocispec.Descriptor) error {
	if int64(len(content)) != want.Size {
		return sizeMismatch(want.Digest, int64(len(content)), want.Size)
	}
	if got := want.Digest.Algorithm().FromBytes(content); got != want.Digest {
		return digestMismatch(got, want.Digest)
	}
	return nil
}

// checkDescriptor checks what a node says of content: a digest that can be verified, the one asked for where one was,
// and a possible size.
func checkDescriptor(got ocispec.Descriptor, asked digest.Digest) error {
	if _, err := reference.ParseDigest(got.Digest.String()); err != nil {
		return misbehaved{errdef.Wrap(errdef.Internal, err, "a node sent a descriptor without a usable digest")}
	}
	if asked != "" && got.Digest != asked {
		return digestMismatch(got.Digest, asked)
	}
	if got.Size < 0 {
		return sizeMismatch(got.Digest, got.Size, 0)
	}
	return nil
}

func digestMismatch(got, want digest.Digest) error {
	return misbehaved{errdef.New(errdef.DigestMismatch, "content of %s has digest %s", want, got).
		WithRemedy("do not use it; the node's disk or the way to it is broken")}
}

func sizeMismatch(dgst digest.Digest, got, want int64) error {
	return misbehaved{errdef.New(errdef.SizeMismatch, "content of %s has %d bytes, not %d", dgst, got, want).
		WithRemedy("check the size in the descriptor that was asked for")}
}
