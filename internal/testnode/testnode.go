// Package testnode is a node for tests of what calls nodes: a real gRPC server on loopback that serves the client API
// from oras-go's memory store, and can be told to fail, stall, lie and die.
//
// It has no catalog, no disk and no upstream: only tests of the client library and of the command line import it.
package testnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	membersv1 "github.com/ocistern/ocistern/internal/proto/ocistern/members/v1"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
)

// Call is one request to a node, as an Intercept sees it.
type Call struct {
	// Method is the name of the RPC, for example FetchBlob.
	Method string
	Target *registryv1.Target
	// Offset is where a FetchBlob starts; Sent counts the bytes sent so far: it is seen once before each chunk.
	Offset, Sent int64
}

// Intercept is called before each answer and each chunk of a blob. Its error is sent instead.
type Intercept func(ctx context.Context, call Call) error

// Node is one running node.
type Node struct {
	registryv1.UnimplementedRegistryServiceServer

	// Address is the host:port of its gRPC listener.
	Address string
	name    string
	cluster *Cluster

	mu        sync.Mutex // guards what follows
	server    *grpc.Server
	served    chan struct{} // closed when the listener is
	intercept Intercept
	alter     func([]byte) []byte
	lag       uint64
	status    *registryv1.GetStatusResponse
	calls     []Call
	rounds    int  // calls of ResolveKnown
	older     bool // does not know ResolveKnown
}

// ChunkBytes is the size of the chunks of a blob.
const ChunkBytes = 32 << 10

// Start runs a node on a free port of loopback until the test ends.
func Start(t testing.TB, name string, cluster *Cluster) *Node {
	t.Helper()
	n, err := Run(name, cluster)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	return n
}

// Run runs a node on a free port of loopback until it is stopped.
func Run(name string, cluster *Cluster) (*Node, error) {
	listener, err := listen("127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &Node{Address: listener.Addr().String(), name: name, cluster: cluster}
	n.serve(listener)
	return n, nil
}

// Restart runs a stopped node again, at the same address.
func (n *Node) Restart() error {
	listener, err := listen(n.Address)
	if err != nil {
		return err
	}
	n.serve(listener)
	return nil
}

func listen(address string) (net.Listener, error) {
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("test node: %w", err)
	}
	return listener, nil
}

func (n *Node) serve(listener net.Listener) {
	server, served := grpc.NewServer(), make(chan struct{})
	registryv1.RegisterRegistryServiceServer(server, n)
	membersv1.RegisterMembersServiceServer(server, members{node: n})
	n.mu.Lock()
	n.server, n.served = server, served
	n.mu.Unlock()
	go func() {
		defer close(served)
		if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			panic(err) // a bug of the test
		}
	}()
}

// Stop cuts all connections at once, as a killed process would, and frees the port.
func (n *Node) Stop() {
	n.mu.Lock()
	server, served := n.server, n.served
	n.mu.Unlock()
	server.Stop()
	<-served // Stop does not wait for a Serve that has not begun
}

// Intercept sets what happens before each answer; nil for nothing.
func (n *Node) Intercept(intercept Intercept) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.intercept = intercept
}

// Alter sets what a node does to manifests and blobs before it sends them; nil for nothing. It gets a copy.
func (n *Node) Alter(alter func([]byte) []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.alter = alter
}

// Lag makes the node answer from a catalog that is so many entries behind, whatever index was asked for: a broken node.
func (n *Node) Lag(entries uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lag = entries
}

// SetStatus sets the answer of GetStatus.
func (n *Node) SetStatus(status *registryv1.GetStatusResponse) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.status = proto.CloneOf(status)
}

// Calls returns the requests that reached the node, chunks left out.
func (n *Node) Calls() []Call {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]Call(nil), n.calls...)
}

// Rounds returns how often ResolveKnown was called; Calls has each name of it.
func (n *Node) Rounds() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rounds
}

// Older makes n a node of a version that does not know ResolveKnown.
func (n *Node) Older() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.older = true
}

// enter records a call and runs the intercept.
func (n *Node) enter(ctx context.Context, call Call) error {
	n.mu.Lock()
	if call.Sent == 0 {
		n.calls = append(n.calls, call)
	}
	intercept := n.intercept
	n.mu.Unlock()
	if intercept == nil {
		return nil
	}
	return intercept(ctx, call)
}
