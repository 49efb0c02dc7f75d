package client

import (
	"net"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/ocistern/ocistern/internal/errdef"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
	snapshotv1 "github.com/ocistern/ocistern/internal/proto/ocistern/snapshot/v1"
)

const (
	// maxMessageBytes bounds one gRPC answer: manifests and lists of referrers; blobs come in parts.
	maxMessageBytes = 64 << 20
	// connectTimeout bounds one attempt to connect, for nodes whose host is gone and refuses nothing.
	connectTimeout = 3 * time.Second
	// Windows of flow control, fixed: else gRPC measures the way with a ping for each answer.
	streamWindow, connectionWindow = 1 << 20, 4 << 20
)

// endpoint is one node's address and its connection, which gRPC makes when first used and makes again when lost.
type endpoint struct {
	address   string
	conn      *grpc.ClientConn
	api       registryv1.RegistryServiceClient
	snapshots snapshotv1.SnapshotServiceClient
	known     *gatherer
}

func dial(address string, chosen options) (*endpoint, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, errdef.Wrap(errdef.ConfigInvalid, err, "endpoint %q is not an address", address).
			WithRemedy("write host:port of a node's gRPC listener, for example 127.0.0.1:5010")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return nil, errdef.New(errdef.ConfigInvalid, "endpoint %q lacks a host or a port number", address).
			WithRemedy("write host:port of a node's gRPC listener, for example 127.0.0.1:5010")
	}
	reconnect := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(chosen.credentials),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: connectTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connectionWindow),
		grpc.WithNoProxy(), // a node is near its callers; the proxy of the environment is for the world outside
		grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		return nil, errdef.Wrap(errdef.ConfigInvalid, err, "endpoint %q cannot be used", address)
	}
	return &endpoint{
		address: address, conn: conn, api: registryv1.NewRegistryServiceClient(conn),
		snapshots: snapshotv1.NewSnapshotServiceClient(conn),
	}, nil
}
