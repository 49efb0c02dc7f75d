package rpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serve runs a server on loopback until the test ends, and returns its address.
func serve(t *testing.T, server *grpc.Server) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// dial connects to a server until the test ends.
func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageBytes)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// remote is a registry.Registry on the other side of gRPC.
type remote struct {
	registryv1.RegistryServiceClient
}

// over serves r and returns the way to it.
func over(t *testing.T, r registry.Registry) registry.Registry {
	t.Helper()
	server := NewRegistryServer(RegistryConfig{
		Registry: r, Status: noStatus{}, Ready: func() error { return nil }, Logger: quiet(),
	})
	return remote{registryv1.NewRegistryServiceClient(dial(t, serve(t, server)))}
}

type noStatus struct{}

func (noStatus) Status(_ context.Context, digest bool) (*registryv1.GetStatusResponse, error) {
	if digest {
		return nil, errdef.New(errdef.Unsupported, "no digest")
	}
	return &registryv1.GetStatusResponse{Version: "test"}, nil
}

func targetMessage(principal registry.Principal, target registry.Target) *registryv1.Target {
	message := &registryv1.Target{
		Tenant: string(principal.Tenant), Repository: string(target.Reference.Repository),
		Reference: target.Reference.Digest.String(), MinIndex: uint64(target.MinIndex),
	}
	if target.Reference.Tag != "" {
		message.Reference = string(target.Reference.Tag)
	}
	return message
}

func parseDescriptor(message *registryv1.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: message.GetMediaType(), Digest: digest.Digest(message.GetDigest()), Size: message.GetSize(),
		ArtifactType: message.GetArtifactType(), Annotations: message.GetAnnotations(),
	}
}

func parseProvenance(message *registryv1.Provenance) registry.Provenance {
	p := registry.Provenance{
		Index: catalog.LogIndex(message.GetCatalogIndex()), Source: catalog.Source(message.GetSource()),
		Fresh: message.GetFresh(), StaleReason: message.GetStaleReason(), Node: message.GetNode(),
		Why: registry.Why(message.GetWhy()), Age: message.GetAge().AsDuration(),
	}
	if message.GetObserved() != nil {
		p.Observed = message.GetObserved().AsTime()
	}
	return p
}

func (r remote) Resolve(
	ctx context.Context, principal registry.Principal, target registry.Target,
) (registry.Resolved, error) {
	request := &registryv1.ResolveRequest{Target: targetMessage(principal, target)}
	answer, err := r.RegistryServiceClient.Resolve(ctx, request)
	return registry.Resolved{
		Descriptor: parseDescriptor(answer.GetDescriptor_()), Provenance: parseProvenance(answer.GetProvenance()),
	}, errdef.FromGRPC(err)
}

func (r remote) FetchManifest(
	ctx context.Context, principal registry.Principal, target registry.Target,
) (registry.Manifest, error) {
	request := &registryv1.FetchManifestRequest{Target: targetMessage(principal, target)}
	answer, err := r.RegistryServiceClient.FetchManifest(ctx, request)
	return registry.Manifest{
		Descriptor: parseDescriptor(answer.GetDescriptor_()), Content: answer.GetContent(),
		Provenance: parseProvenance(answer.GetProvenance()),
	}, errdef.FromGRPC(err)
}

func (r remote) FetchBlob(
	ctx context.Context, principal registry.Principal, target registry.Target, offset int64,
) (*registry.Blob, error) {
	request := &registryv1.FetchBlobRequest{Target: targetMessage(principal, target), Offset: offset}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := r.RegistryServiceClient.FetchBlob(ctx, request)
	if err != nil {
		cancel()
		return nil, errdef.FromGRPC(err)
	}
	first, err := stream.Recv()
	if err != nil {
		cancel()
		return nil, errdef.FromGRPC(err)
	}
	desc := parseDescriptor(first.GetHeader().GetDescriptor_())
	recv := func() ([]byte, error) {
		part, err := stream.Recv()
		if err != nil && !errors.Is(err, io.EOF) {
			err = errdef.FromGRPC(err)
		}
		return part.GetChunk(), err
	}
	return &registry.Blob{
		Descriptor: desc, Provenance: parseProvenance(first.GetHeader().GetProvenance()),
		Content: &chunkReader{recv: recv, cancel: cancel, length: desc.Size - offset},
	}, nil
}

func (r remote) Referrers(
	ctx context.Context, principal registry.Principal, target registry.Target, artifactType string,
) (registry.Referrers, error) {
	request := &registryv1.ListReferrersRequest{Target: targetMessage(principal, target), ArtifactType: artifactType}
	answer, err := r.ListReferrers(ctx, request)
	list := registry.Referrers{Provenance: parseProvenance(answer.GetProvenance())}
	for _, desc := range answer.GetReferrers() {
		list.Descriptors = append(list.Descriptors, parseDescriptor(desc))
	}
	return list, errdef.FromGRPC(err)
}

func (r remote) Tags(
	ctx context.Context, principal registry.Principal, target registry.Target, last reference.Tag, limit int,
) (registry.TagPage, error) {
	request := &registryv1.ListTagsRequest{
		Target: targetMessage(principal, target), Last: string(last), Limit: int32(limit),
	}
	answer, err := r.ListTags(ctx, request)
	page := registry.TagPage{More: answer.GetMore(), Provenance: parseProvenance(answer.GetProvenance())}
	for _, tag := range answer.GetTags() {
		page.Tags = append(page.Tags, reference.Tag(tag))
	}
	return page, errdef.FromGRPC(err)
}
