package client

import (
	"bytes"
	"context"
	"errors"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
	"github.com/ocistern/ocistern/internal/reference"
)

// smallBytes is the size up to which a blob is verified as a whole before its first byte is handed out, so that wrong
// bytes of one node can be replaced by those of another. Nodes keep content up to this size in memory.
const smallBytes = 256 << 10

// Fetch returns the content of a descriptor, verified against its digest and size: the reader gives the last bytes and
// io.EOF only when all of it is right, and otherwise an error that matches ErrDigestMismatch or ErrSizeMismatch. Media
// types of manifests are fetched as manifests, all others as blobs. ctx bounds reading as well. The caller closes it.
func (r *Repository) Fetch(ctx context.Context, target ocispec.Descriptor) (io.ReadCloser, error) {
	if _, err := reference.ParseDigest(target.Digest.String()); err != nil {
		return nil, err
	}
	switch {
	case isManifest(target.MediaType):
		return whole(r.fetchManifest(ctx, target))
	case target.Size <= smallBytes:
		return whole(r.fetchSmall(ctx, target))
	default:
		return r.openBlob(ctx, target)
	}
}

// FetchReference returns the manifest that a tag, a digest or a full reference into this repository points at, in one
// request.
func (r *Repository) FetchReference(ctx context.Context, ref string) (ocispec.Descriptor, io.ReadCloser, error) {
	parsed, err := r.parse(ref)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	var descriptor ocispec.Descriptor
	var content []byte
	way := r.client.sticky()
	if parsed.Digest != "" {
		way = r.manifestRoute(parsed.Digest)
	}
	err = r.client.callOn(ctx, way, func(ctx context.Context, api registryv1.RegistryServiceClient) error {
		target := r.target(tagOrDigestOf(parsed))
		answer, err := api.FetchManifest(ctx, &registryv1.FetchManifestRequest{Target: target})
		if err != nil {
			return err
		}
		descriptor, content = descriptorOf(answer.GetDescriptor_()), answer.GetContent()
		if err := checkDescriptor(descriptor, parsed.Digest); err != nil {
			return err
		}
		if err := verify(content, descriptor); err != nil {
			return err
		}
		if parsed.Digest == "" {
			return r.client.session.accept(target.GetMinIndex(), answer.GetProvenance())
		}
		r.client.session.observe(answer.GetProvenance())
		return nil
	})
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	return descriptor, io.NopCloser(bytes.NewReader(content)), nil
}

func (r *Repository) fetchManifest(ctx context.Context, want ocispec.Descriptor) (content []byte, err error) {
	err = r.client.callOn(ctx, r.manifestRoute(want.Digest), func(ctx context.Context, api registryv1.RegistryServiceClient) error {
		answer, err := api.FetchManifest(ctx, &registryv1.FetchManifestRequest{Target: r.target(want.Digest.String())})
		if err != nil {
			return err
		}
		content = answer.GetContent()
		r.client.session.observe(answer.GetProvenance())
		return verify(content, want)
	})
	return content, err
}

// fetchSmall collects a small blob.
func (r *Repository) fetchSmall(ctx context.Context, want ocispec.Descriptor) (content []byte, err error) {
	err = r.client.callOn(ctx, r.blobRoute(want.Digest), func(ctx context.Context, api registryv1.RegistryServiceClient) error {
		ctx, cancel := context.WithCancel(ctx) // ends the stream on every way out
		defer cancel()
		stream, err := api.FetchBlob(ctx, &registryv1.FetchBlobRequest{Target: r.target(want.Digest.String())})
		if err != nil {
			return err
		}
		content = make([]byte, 0, max(0, want.Size))
		for {
			part, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return verify(content, want)
			}
			if err != nil {
				return err
			}
			r.client.session.observe(part.GetHeader().GetProvenance())
			content = append(content, part.GetChunk()...)
			if int64(len(content)) > want.Size {
				return sizeMismatch(want.Digest, int64(len(content)), want.Size)
			}
		}
	})
	return content, err
}

func whole(content []byte, err error) (io.ReadCloser, error) {
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(content)), nil
}
