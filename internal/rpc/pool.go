package rpc

import (
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/ocistern/ocistern/internal/errdef"
)

const (
	keepaliveTime    = 10 * time.Second // of silence on a connection with calls in flight; the least that gRPC allows
	keepaliveTimeout = 3 * time.Second
	connectTimeout   = time.Second
	// pooledConnections is the number of connections above which those to nodes that have gone are looked for.
	pooledConnections = 64
)

// pool has one connection per address, made at the first call. A call on a connection that cannot be made fails at
// once, so that the caller can try another node; gRPC dials again in the background, at least every second.
type pool struct {
	identity identity

	// mutex guards connections and closed.
	mutex       sync.Mutex
	connections map[string]*grpc.ClientConn
	closed      bool
}

func newPool(id identity) *pool {
	return &pool{identity: id, connections: map[string]*grpc.ClientConn{}}
}

func (p *pool) get(address string) (*grpc.ClientConn, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.closed {
		return nil, errdef.New(errdef.Unavailable, "this node is shutting down")
	}
	if conn, ok := p.connections[address]; ok {
		return conn, nil
	}
	if len(p.connections) >= pooledConnections {
		p.prune()
	}
	reconnect := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}
	conn, err := grpc.NewClient("passthrough:///"+address, // a DNS name is resolved at each dial
		grpc.WithNoProxy(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithChainUnaryInterceptor(p.identity.unaryClient),
		grpc.WithChainStreamInterceptor(p.identity.streamClient),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageBytes), grpc.MaxCallSendMsgSize(MaxMessageBytes)),
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connectionWindow),
		grpc.WithReadBufferSize(readBufferBytes), grpc.WithWriteBufferSize(writeBufferBytes),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: connectTimeout}),
	)
	if err != nil {
		return nil, errdef.Wrap(errdef.Unavailable, err, "peer address %q", address)
	}
	p.connections[address] = conn
	return conn, nil
}

// prune closes the connections that are not connected: addresses of pods come and go. The caller holds mutex.
func (p *pool) prune() {
	for address, conn := range p.connections {
		if state := conn.GetState(); state == connectivity.Idle || state == connectivity.TransientFailure {
			_ = conn.Close() // fails only when closed already
			delete(p.connections, address)
		}
	}
}

func (p *pool) close() error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.closed = true
	var failures []error
	for _, conn := range p.connections {
		failures = append(failures, conn.Close())
	}
	clear(p.connections)
	return errors.Join(failures...)
}
