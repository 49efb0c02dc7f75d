package rpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/ocistern/ocistern/internal/errdef"
	peerv1 "github.com/ocistern/ocistern/internal/proto/ocistern/peer/v1"
)

// clusterKey is the metadata key under which both sides of a peer call name their cluster.
const clusterKey = "ocistern-cluster-id"

// identity keeps the nodes of different clusters apart. Its function returns the id of this node's cluster, empty while
// it has none; it is asked on every call.
type identity struct {
	clusterID func() string
}

// bootstraps tells whether a method is called before a cluster has an id.
func bootstraps(method string) bool {
	switch method {
	case peerv1.PeerService_Promise_FullMethodName, peerv1.PeerService_Release_FullMethodName,
		peerv1.PeerService_GetState_FullMethodName:
		return true
	}
	return false
}

// admit decides on the server whether a call may proceed, and returns the header that names this node's cluster.
func (i identity) admit(ctx context.Context, method string) (metadata.MD, error) {
	ours, theirs := i.clusterID(), first(metadata.ValueFromIncomingContext(ctx, clusterKey))
	header := metadata.Pairs(clusterKey, ours)
	switch {
	case ours != "" && theirs != "" && ours != theirs:
		return header, mismatch(ours, theirs)
	case bootstraps(method), ours != "" && theirs != "":
		return header, nil
	case ours == "":
		return header, errdef.New(errdef.NotReady, "this node has not joined a cluster yet")
	default:
		return header, errdef.New(errdef.ClusterMismatch, "the caller names no cluster; this node is of cluster %s", ours)
	}
}

func (i identity) unaryServer(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler,
) (any, error) {
	header, err := i.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	if err := grpc.SetHeader(ctx, header); err != nil {
		return nil, err
	}
	return handle(ctx, request)
}

func (i identity) streamServer(
	service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler,
) error {
	header, err := i.admit(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	if err := stream.SetHeader(header); err != nil {
		return err
	}
	return handle(service, stream)
}

func (i identity) unaryClient(
	ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
	options ...grpc.CallOption,
) error {
	var header metadata.MD
	ctx, ours := i.name(ctx)
	if err := invoke(ctx, method, request, reply, conn, append(options, grpc.Header(&header))...); err != nil {
		return err
	}
	return check(ours, header)
}

func (i identity) streamClient(
	ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer,
	options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	ctx, ours := i.name(ctx)
	stream, err := open(ctx, desc, conn, method, options...)
	if err != nil {
		return nil, err
	}
	return &checkedStream{ClientStream: stream, ours: ours}, nil
}

func (i identity) name(ctx context.Context) (context.Context, string) {
	ours := i.clusterID()
	return metadata.AppendToOutgoingContext(ctx, clusterKey, ours), ours
}

// checkedStream refuses the messages of a node of another cluster.
type checkedStream struct {
	grpc.ClientStream
	ours    string
	checked bool
}

// RecvMsg implements grpc.ClientStream.
func (s *checkedStream) RecvMsg(message any) error {
	if err := s.ClientStream.RecvMsg(message); err != nil || s.checked {
		return err
	}
	header, err := s.Header()
	if err != nil {
		return err
	}
	s.checked = true
	return check(s.ours, header)
}

// check refuses an answer of a node of another cluster; a node without one is no stranger.
func check(ours string, header metadata.MD) error {
	if theirs := first(header.Get(clusterKey)); ours != "" && theirs != "" && ours != theirs {
		return mismatch(ours, theirs)
	}
	return nil
}

func mismatch(ours, theirs string) error {
	return errdef.New(errdef.ClusterMismatch, "this node is of cluster %s, the other one of %s", ours, theirs).
		WithRemedy("check the addresses to join, and whose data directory the node uses")
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
