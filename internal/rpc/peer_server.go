package rpc

import (
	"context"
	"io"
	"log/slog"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"

	"github.com/ocistern/ocistern/cluster"
	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/fill"
	membersv1 "github.com/ocistern/ocistern/internal/proto/ocistern/members/v1"
	peerv1 "github.com/ocistern/ocistern/internal/proto/ocistern/peer/v1"
	snapshotv1 "github.com/ocistern/ocistern/internal/proto/ocistern/snapshot/v1"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
)

// Member is what peers ask of this node's place in the cluster. Package cluster implements it.
type Member interface {
	ClusterID() string
	State() cluster.NodeState
	HashAt(ctx context.Context, node catalog.NodeID, index catalog.LogIndex) (cluster.Hash, error)
	Retire(ctx context.Context, node catalog.NodeID) error
}

// Founder is what peers ask of a node that belongs to no cluster yet. Package cluster implements it.
type Founder interface {
	Promise(ctx context.Context, promise cluster.Promise) error
	Release(ctx context.Context, promise cluster.Promise) error
}

// Leader is what peers ask of this node when it leads; else it fails with NOT_LEADER. Package cluster implements it.
type Leader interface {
	ApplyAllLocal(ctx context.Context, requests []fsm.Request) []catalog.Result
	ReadIndexLocal(ctx context.Context, witness cluster.Witness) (catalog.LogIndex, error)
	SurveyLocal(ctx context.Context) ([]cluster.Member, error)
	OperateLocal(ctx context.Context, operation cluster.Operation) (catalog.NodeID, error)
}

// Filler fills what this node owns. Package fill implements it.
type Filler interface {
	Refresh(ctx context.Context, key fill.Key, seen catalog.LogIndex) (catalog.LogIndex, error)
	Fetch(ctx context.Context, key fill.ContentKey, offset int64) (*fill.Stream, error)
}

// PeerConfig is what the peer service works with. All fields are required.
type PeerConfig struct {
	Member  Member
	Founder Founder
	Leader  Leader
	Filler  Filler
	Store   registry.Store
	// Snapshots restores on this node, which must be the leader (else NOT_LEADER).
	Snapshots Snapshots
	Logger    *slog.Logger
}

// NewPeerServer returns a gRPC server with the peer service. Only nodes of the same cluster may call it, except for
// what a node without a cluster needs in order to get one. The caller serves and stops it.
func NewPeerServer(config PeerConfig) *grpc.Server {
	id := identity{clusterID: config.Member.ClusterID}
	server := newServer(config.Logger, grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.ChainUnaryInterceptor(id.unaryServer), grpc.ChainStreamInterceptor(id.streamServer))
	peerv1.RegisterPeerServiceServer(server, &peerService{
		member: config.Member, founder: config.Founder, leader: config.Leader, filler: config.Filler, store: config.Store,
	})
	membersv1.RegisterMembersServiceServer(server, &membersService{members: leaderMembers{config.Leader}})
	snapshotv1.RegisterSnapshotServiceServer(server, &snapshotService{snapshots: config.Snapshots})
	return server
}

type peerService struct {
	peerv1.UnimplementedPeerServiceServer
	member  Member
	founder Founder
	leader  Leader
	filler  Filler
	store   registry.Store
}

// Refresh implements the peer service.
func (s *peerService) Refresh(ctx context.Context, request *peerv1.RefreshRequest) (*peerv1.RefreshResponse, error) {
	key, err := parseRefresh(request)
	if err != nil {
		return nil, err
	}
	index, err := s.filler.Refresh(ctx, key, catalog.LogIndex(request.GetSeenIndex()))
	return &peerv1.RefreshResponse{Index: uint64(index)}, err
}

// FetchContent implements the peer service.
func (s *peerService) FetchContent(
	request *peerv1.FetchContentRequest, stream grpc.ServerStreamingServer[peerv1.FetchContentResponse],
) error {
	content, err := s.open(stream.Context(), request)
	if err != nil {
		return err
	}
	defer content.Close()
	desc := content.Descriptor
	header := &peerv1.FetchContentResponse_Header{MediaType: desc.MediaType, Size: desc.Size}
	err = stream.Send(&peerv1.FetchContentResponse{Part: &peerv1.FetchContentResponse_Header_{Header: header}})
	if err != nil {
		return err
	}
	return sendChunks(content, desc.Size-request.GetOffset(), func(chunk []byte) error {
		return stream.Send(&peerv1.FetchContentResponse{Part: &peerv1.FetchContentResponse_Chunk{Chunk: chunk}})
	})
}

func (s *peerService) open(ctx context.Context, request *peerv1.FetchContentRequest) (*fill.Stream, error) {
	if request.GetOffset() < 0 {
		return nil, errdef.New(errdef.RangeInvalid, "offset %d is negative", request.GetOffset())
	}
	if !request.GetHeldOnly() {
		key, err := parseContent(request)
		if err != nil {
			return nil, err
		}
		return s.filler.Fetch(ctx, key, request.GetOffset())
	}
	dgst, err := reference.ParseDigest(request.GetDigest())
	if err != nil {
		return nil, err
	}
	content, err := s.store.Open(dgst)
	if err != nil {
		return nil, err
	}
	stream := &fill.Stream{ReadCloser: content, Descriptor: ocispec.Descriptor{Digest: dgst, Size: content.Size()}}
	if request.GetOffset() > content.Size() {
		err = errdef.New(errdef.RangeInvalid, "offset %d is past the end of %s", request.GetOffset(), dgst)
	} else {
		_, err = content.Seek(request.GetOffset(), io.SeekStart)
	}
	if err != nil {
		_ = content.Close() // nothing was read
		return nil, err
	}
	return stream, nil
}

// Promise implements the peer service.
func (s *peerService) Promise(ctx context.Context, request *peerv1.PromiseRequest) (*peerv1.PromiseResponse, error) {
	return &peerv1.PromiseResponse{}, s.founder.Promise(ctx, parsePromise(request))
}

// Release implements the peer service.
func (s *peerService) Release(ctx context.Context, request *peerv1.ReleaseRequest) (*peerv1.ReleaseResponse, error) {
	promise := cluster.Promise{ClusterID: request.GetClusterId(), Proposer: catalog.NodeID(request.GetProposer())}
	return &peerv1.ReleaseResponse{}, s.founder.Release(ctx, promise)
}

// GetState implements the peer service.
func (s *peerService) GetState(context.Context, *peerv1.GetStateRequest) (*peerv1.GetStateResponse, error) {
	return stateMessage(s.member.State()), nil
}

// ReadIndex implements the peer service.
func (s *peerService) ReadIndex(
	ctx context.Context, request *peerv1.ReadIndexRequest,
) (*peerv1.ReadIndexResponse, error) {
	witness := cluster.Witness{Node: catalog.NodeID(request.GetNode()), Term: request.GetTerm()}
	index, err := s.leader.ReadIndexLocal(ctx, witness)
	return &peerv1.ReadIndexResponse{Index: uint64(index)}, err
}

// GetHash implements the peer service.
func (s *peerService) GetHash(ctx context.Context, request *peerv1.GetHashRequest) (*peerv1.GetHashResponse, error) {
	hash, err := s.member.HashAt(ctx, catalog.NodeID(request.GetNode()), catalog.LogIndex(request.GetIndex()))
	if err != nil {
		return nil, err
	}
	return &peerv1.GetHashResponse{Hash: hash[:]}, nil
}

// Retire implements the peer service.
func (s *peerService) Retire(ctx context.Context, request *peerv1.RetireRequest) (*peerv1.RetireResponse, error) {
	return &peerv1.RetireResponse{}, s.member.Retire(ctx, catalog.NodeID(request.GetNode()))
}
