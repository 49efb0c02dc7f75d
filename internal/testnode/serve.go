package testnode

import (
	"context"
	"errors"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry"

	"github.com/ocistern/ocistern/internal/errdef"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
)

// Resolve implements the client API.
func (n *Node) Resolve(ctx context.Context, request *registryv1.ResolveRequest) (*registryv1.ResolveResponse, error) {
	if err := n.enter(ctx, Call{Method: "Resolve", Target: request.GetTarget()}); err != nil {
		return nil, errdef.ToGRPC(err)
	}
	descriptor, err := n.resolve(ctx, request.GetTarget())
	if err != nil {
		return nil, errdef.ToGRPC(err)
	}
	return &registryv1.ResolveResponse{Descriptor_: wire(descriptor), Provenance: n.provenance()}, nil
}

// ResolveKnown implements the client API. Each name counts as a call of Resolve; several at a time are told nothing of what
// fails.
func (n *Node) ResolveKnown(
	ctx context.Context, request *registryv1.ResolveKnownRequest,
) (*registryv1.ResolveKnownResponse, error) {
	n.mu.Lock()
	n.rounds++
	older := n.older
	n.mu.Unlock()
	if older {
		return n.UnimplementedRegistryServiceServer.ResolveKnown(ctx, request)
	}
	response := &registryv1.ResolveKnownResponse{}
	for _, name := range request.GetNames() {
		target := proto.CloneOf(request.GetTarget())
		target.Repository, target.Reference = name.GetRepository(), name.GetReference()
		answer, err := n.Resolve(ctx, &registryv1.ResolveRequest{Target: target})
		if err != nil {
			if len(request.GetNames()) == 1 {
				return nil, err
			}
			answer = &registryv1.ResolveResponse{}
		}
		response.Answers = append(response.Answers, answer)
	}
	return response, nil
}

// FetchManifest implements the client API.
func (n *Node) FetchManifest(
	ctx context.Context, request *registryv1.FetchManifestRequest,
) (*registryv1.FetchManifestResponse, error) {
	if err := n.enter(ctx, Call{Method: "FetchManifest", Target: request.GetTarget()}); err != nil {
		return nil, errdef.ToGRPC(err)
	}
	descriptor, err := n.resolve(ctx, request.GetTarget())
	if err != nil {
		return nil, errdef.ToGRPC(err)
	}
	manifest, err := n.content(ctx, request.GetTarget(), descriptor)
	if err != nil {
		return nil, errdef.ToGRPC(err)
	}
	return &registryv1.FetchManifestResponse{
		Descriptor_: wire(descriptor), Content: manifest, Provenance: n.provenance(),
	}, nil
}

// FetchBlob implements the client API.
func (n *Node) FetchBlob(
	request *registryv1.FetchBlobRequest, stream grpc.ServerStreamingServer[registryv1.FetchBlobResponse],
) error {
	return errdef.ToGRPC(n.fetchBlob(stream.Context(), request, stream.Send))
}

func (n *Node) fetchBlob(
	ctx context.Context, request *registryv1.FetchBlobRequest, send func(*registryv1.FetchBlobResponse) error,
) error {
	call := Call{Method: "FetchBlob", Target: request.GetTarget(), Offset: request.GetOffset()}
	if err := n.enter(ctx, call); err != nil {
		return err
	}
	descriptor, err := n.resolve(ctx, request.GetTarget())
	if err != nil {
		return err
	}
	blob, err := n.content(ctx, request.GetTarget(), descriptor)
	if err != nil {
		return err
	}
	header := &registryv1.FetchBlobResponse_Header{Descriptor_: wire(descriptor), Provenance: n.provenance()}
	first := &registryv1.FetchBlobResponse{Part: &registryv1.FetchBlobResponse_Header_{Header: header}}
	if err := send(first); err != nil {
		return err
	}
	rest := blob[min(request.GetOffset(), int64(len(blob))):]
	for chunk := range slices.Chunk(rest, ChunkBytes) {
		part := &registryv1.FetchBlobResponse{Part: &registryv1.FetchBlobResponse_Chunk{Chunk: chunk}}
		if err := send(part); err != nil {
			return err
		}
		call.Sent += int64(len(chunk))
		if err := n.enter(ctx, call); err != nil {
			return err
		}
	}
	return nil
}

// ListReferrers implements the client API.
func (n *Node) ListReferrers(
	ctx context.Context, request *registryv1.ListReferrersRequest,
) (*registryv1.ListReferrersResponse, error) {
	if err := n.enter(ctx, Call{Method: "ListReferrers", Target: request.GetTarget()}); err != nil {
		return nil, errdef.ToGRPC(err)
	}
	answer := &registryv1.ListReferrersResponse{Provenance: n.provenance()}
	subject, err := n.resolve(ctx, request.GetTarget())
	if errors.Is(err, errdef.ErrNotFound) {
		return answer, nil
	}
	if err != nil {
		return nil, errdef.ToGRPC(err)
	}
	store := n.cluster.Repository(request.GetTarget().GetRepository())
	referrers, err := registry.Referrers(ctx, store, subject, request.GetArtifactType())
	if err != nil {
		return nil, errdef.ToGRPC(err)
	}
	for _, referrer := range referrers {
		answer.Referrers = append(answer.Referrers, wire(referrer))
	}
	return answer, nil
}

// ListTags implements the client API, in pages of two tags.
func (n *Node) ListTags(
	ctx context.Context, request *registryv1.ListTagsRequest,
) (*registryv1.ListTagsResponse, error) {
	if err := n.enter(ctx, Call{Method: "ListTags", Target: request.GetTarget()}); err != nil {
		return nil, errdef.ToGRPC(err)
	}
	tags := n.cluster.Repository(request.GetTarget().GetRepository()).Tags()
	tags = slices.DeleteFunc(tags, func(tag string) bool { return tag <= request.GetLast() })
	page := tags[:min(2, len(tags))]
	return &registryv1.ListTagsResponse{Tags: page, More: len(page) < len(tags), Provenance: n.provenance()}, nil
}

// GetStatus implements the client API.
func (n *Node) GetStatus(
	ctx context.Context, request *registryv1.GetStatusRequest,
) (*registryv1.GetStatusResponse, error) {
	if err := n.enter(ctx, Call{Method: "GetStatus"}); err != nil {
		return nil, errdef.ToGRPC(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	status := proto.CloneOf(n.status)
	if !request.GetCatalogDigest() && status.GetCatalog() != nil {
		status.Catalog.Digest = ""
	}
	return status, nil
}

// resolve finds content by tag or digest.
func (n *Node) resolve(ctx context.Context, target *registryv1.Target) (ocispec.Descriptor, error) {
	descriptor, err := n.cluster.Repository(target.GetRepository()).Resolve(ctx, target.GetReference())
	if err != nil {
		return ocispec.Descriptor{}, errdef.Wrap(errdef.NotFound, err,
			"%s has no %s", target.GetRepository(), target.GetReference())
	}
	return descriptor, nil
}

func (n *Node) content(ctx context.Context, target *registryv1.Target, descriptor ocispec.Descriptor) ([]byte, error) {
	found, err := content.FetchAll(ctx, n.cluster.Repository(target.GetRepository()), descriptor)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.alter != nil {
		found = n.alter(slices.Clone(found))
	}
	return found, nil
}
