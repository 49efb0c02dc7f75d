// Package rpc speaks gRPC: the registry service that clients call, the peer service that the nodes of one cluster call,
// and the client side of the latter. It converts messages, deadlines and errors and decides nothing else: package
// registry answers callers, packages cluster and fill answer peers. The composition root starts both servers.
package rpc

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/ocistern/ocistern/internal/errdef"
)

// MaxMessageBytes bounds one message, except requests to the registry service, which are small: a forwarded command, a
// manifest, a referrers list. Clients must accept answers of this size.
const MaxMessageBytes = 16 << 20

const (
	maxRequestBytes = 64 << 10        // to the registry service
	chunkBytes      = 256 << 10       // of content in one message of a stream
	maxStreams      = 1024            // calls in flight on one connection
	unaryTimeout    = 2 * time.Minute // for callers that set no deadline
	// workers take calls one after the other, on stacks that have grown; more calls at a time get goroutines of their own.
	workers = 128
	// Windows of flow control, fixed: with small ones gRPC measures the way with a ping for each message.
	streamWindow, connectionWindow = 1 << 20, 4 << 20
	// Buffers between a connection and gRPC: with larger ones, large content costs fewer system calls. gRPC shares the second one
	// among all connections: it is held only while something is written.
	readBufferBytes, writeBufferBytes = 64 << 10, 256 << 10
)

// newServer returns a server whose handlers may panic, return errors of package errdef, and be called without deadline.
func newServer(logger *slog.Logger, options ...grpc.ServerOption) *grpc.Server {
	g := guard{logger: logger}
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.ChainUnaryInterceptor(g.unary),
		grpc.ChainStreamInterceptor(g.stream),
		grpc.MaxSendMsgSize(MaxMessageBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.NumStreamWorkers(workers),
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(connectionWindow),
		grpc.ReadBufferSize(readBufferBytes), grpc.WriteBufferSize(writeBufferBytes),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2, PermitWithoutStream: true}),
	}, options...)...)
}

// guard turns whatever a handler does into an answer with a reason.
type guard struct {
	logger *slog.Logger
}

func (g guard) unary(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler,
) (response any, err error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, unaryTimeout)
		defer cancel()
	}
	defer func() { err = g.finish(info.FullMethod, recover(), err) }()
	return handle(ctx, request)
}

func (g guard) stream(
	service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler,
) (err error) {
	defer func() { err = g.finish(info.FullMethod, recover(), err) }()
	return handle(service, stream)
}

// finish logs what is our own fault, and converts err. An error of gRPC itself (the caller went away) stays as it is.
func (g guard) finish(method string, panicked any, err error) error {
	if panicked != nil {
		g.logger.Error("call panicked", "method", method, "panic", panicked, "stack", string(debug.Stack()))
		return errdef.ToGRPC(errdef.New(errdef.Internal, "%s failed unexpectedly; the node's log says more", method))
	}
	if err == nil {
		return nil
	}
	if _, ours := status.FromError(err); ours {
		return err
	}
	if errdef.ReasonOf(err) == errdef.Internal {
		g.logger.Error("call failed", "method", method, "error", err)
	}
	return errdef.ToGRPC(err)
}
