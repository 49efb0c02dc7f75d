package rpc

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/proto"

	"github.com/ocistern/ocistern/internal/errdef"
	freshnessv1 "github.com/ocistern/ocistern/internal/proto/ocistern/freshness/v1"
	membersv1 "github.com/ocistern/ocistern/internal/proto/ocistern/members/v1"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
	snapshotv1 "github.com/ocistern/ocistern/internal/proto/ocistern/snapshot/v1"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
)

// StatusReporter tells about a node and its cluster. The catalog digest costs time in proportion to the catalog.
type StatusReporter interface {
	Status(ctx context.Context, catalogDigest bool) (*registryv1.GetStatusResponse, error)
}

// RegistryConfig is what the registry service answers from. All fields are required.
type RegistryConfig struct {
	Registry registry.Registry
	Known    registry.Known
	Status   StatusReporter
	Members  Members
	// Snapshots finds the leader for what only the leader can do.
	Snapshots Snapshots
	Steward   Steward
	// Ready drives the health service: the node serves while it returns nil.
	Ready  func() error
	Logger *slog.Logger
}

// NewRegistryServer returns a gRPC server with the services for callers: registry, members, freshness, snapshot, health and reflection.
// The caller serves and stops it.
func NewRegistryServer(config RegistryConfig) *grpc.Server {
	server := newServer(config.Logger, grpc.MaxRecvMsgSize(maxRequestBytes))
	registryv1.RegisterRegistryServiceServer(server, &registryService{
		registry: config.Registry, known: config.Known, status: config.Status,
	})
	membersv1.RegisterMembersServiceServer(server, &membersService{members: config.Members})
	freshnessv1.RegisterFreshnessServiceServer(server, &freshnessService{steward: config.Steward})
	snapshotv1.RegisterSnapshotServiceServer(server, &snapshotService{snapshots: config.Snapshots})
	healthv1.RegisterHealthServer(server, &health{ready: config.Ready, interval: time.Second})
	reflection.Register(server)
	return server
}

type registryService struct {
	registryv1.UnimplementedRegistryServiceServer
	registry registry.Registry
	known    registry.Known
	status   StatusReporter
}

// Resolve implements the registry service.
func (s *registryService) Resolve(
	ctx context.Context, request *registryv1.ResolveRequest,
) (*registryv1.ResolveResponse, error) {
	principal, target, err := parseTarget(request.GetTarget())
	if err != nil {
		return nil, err
	}
	answer, err := s.registry.Resolve(ctx, principal, target)
	if err != nil {
		return nil, err
	}
	return resolvedMessage(answer), nil
}

// ResolveKnown implements the registry service.
func (s *registryService) ResolveKnown(
	ctx context.Context, request *registryv1.ResolveKnownRequest,
) (*registryv1.ResolveKnownResponse, error) {
	principal, target, err := parseLevel(request.GetTarget())
	if err != nil {
		return nil, err
	}
	answers, err := s.known.ResolveKnown(ctx, principal, target, parseKnown(request.GetNames()))
	if err != nil {
		return nil, err
	}
	response := &registryv1.ResolveKnownResponse{Answers: make([]*registryv1.ResolveResponse, len(answers))}
	room := MaxMessageBytes / 2
	for i := range answers {
		response.Answers[i] = &registryv1.ResolveResponse{}
	}
	for i, answer := range answers {
		if answer.Descriptor.Digest == "" {
			continue
		}
		message := resolvedMessage(answer)
		if room -= proto.Size(message); room < 0 {
			break
		}
		response.Answers[i] = message
	}
	return response, nil
}

// FetchManifest implements the registry service.
func (s *registryService) FetchManifest(
	ctx context.Context, request *registryv1.FetchManifestRequest,
) (*registryv1.FetchManifestResponse, error) {
	principal, target, err := parseTarget(request.GetTarget())
	if err != nil {
		return nil, err
	}
	answer, err := s.registry.FetchManifest(ctx, principal, target)
	if err != nil {
		return nil, err
	}
	return &registryv1.FetchManifestResponse{
		Descriptor_: descriptorMessage(answer.Descriptor), Content: answer.Content,
		Provenance: provenanceMessage(answer.Provenance),
	}, nil
}

// FetchBlob implements the registry service.
func (s *registryService) FetchBlob(
	request *registryv1.FetchBlobRequest, stream grpc.ServerStreamingServer[registryv1.FetchBlobResponse],
) error {
	principal, target, err := parseDigestTarget(request.GetTarget())
	if err != nil {
		return err
	}
	blob, err := s.registry.FetchBlob(stream.Context(), principal, target, request.GetOffset())
	if err != nil {
		return err
	}
	defer blob.Content.Close()
	header := &registryv1.FetchBlobResponse_Header{
		Descriptor_: descriptorMessage(blob.Descriptor), Provenance: provenanceMessage(blob.Provenance),
	}
	err = stream.Send(&registryv1.FetchBlobResponse{Part: &registryv1.FetchBlobResponse_Header_{Header: header}})
	if err != nil {
		return err
	}
	return sendChunks(blob.Content, blob.Descriptor.Size-request.GetOffset(), func(chunk []byte) error {
		return stream.Send(&registryv1.FetchBlobResponse{Part: &registryv1.FetchBlobResponse_Chunk{Chunk: chunk}})
	})
}

// ListReferrers implements the registry service.
func (s *registryService) ListReferrers(
	ctx context.Context, request *registryv1.ListReferrersRequest,
) (*registryv1.ListReferrersResponse, error) {
	principal, target, err := parseDigestTarget(request.GetTarget())
	if err != nil {
		return nil, err
	}
	answer, err := s.registry.Referrers(ctx, principal, target, request.GetArtifactType())
	if err != nil {
		return nil, err
	}
	response := &registryv1.ListReferrersResponse{
		Referrers:  make([]*registryv1.Descriptor, 0, len(answer.Descriptors)),
		Provenance: provenanceMessage(answer.Provenance),
	}
	for _, desc := range answer.Descriptors {
		response.Referrers = append(response.Referrers, descriptorMessage(desc))
	}
	if size := proto.Size(response); size > MaxMessageBytes {
		return nil, errdef.New(errdef.ManifestTooLarge, "the referrers list of %s has %d bytes", target.Reference, size).
			WithRemedy("at most %d: filter by artifact type", MaxMessageBytes)
	}
	return response, nil
}

// ListTags implements the registry service.
func (s *registryService) ListTags(
	ctx context.Context, request *registryv1.ListTagsRequest,
) (*registryv1.ListTagsResponse, error) {
	principal, target, err := parseRepositoryTarget(request.GetTarget())
	if err != nil {
		return nil, err
	}
	limit, err := parseLimit(request.GetLimit())
	if err != nil {
		return nil, err
	}
	page, err := s.registry.Tags(ctx, principal, target, reference.Tag(request.GetLast()), limit)
	if err != nil {
		return nil, err
	}
	response := &registryv1.ListTagsResponse{More: page.More, Provenance: provenanceMessage(page.Provenance)}
	for _, tag := range page.Tags {
		response.Tags = append(response.Tags, string(tag))
	}
	return response, nil
}

// GetStatus implements the registry service.
func (s *registryService) GetStatus(
	ctx context.Context, request *registryv1.GetStatusRequest,
) (*registryv1.GetStatusResponse, error) {
	return s.status.Status(ctx, request.GetCatalogDigest())
}
