package rpc

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/cluster"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/fill"
	peerv1 "github.com/ocistern/ocistern/internal/proto/ocistern/peer/v1"
)

// memberTimeout bounds the small calls that membership makes, so that one silent node does not hold up the others.
const memberTimeout = 3 * time.Second

// PeerClient calls the peer service of other nodes by address. A node that cannot be reached is reason UNAVAILABLE, at
// once when its address is known to be dead. It implements cluster.Peers and is safe for concurrent use.
type PeerClient struct {
	pool    *pool
	applies applies
}

var _ cluster.Peers = (*PeerClient)(nil)

// NewPeerClient returns a PeerClient that dials nobody yet. clusterID returns the id of this node's cluster, empty
// while it has none; it is called on every call.
func NewPeerClient(clusterID func() string) *PeerClient {
	return &PeerClient{pool: newPool(identity{clusterID: clusterID}), applies: applies{to: map[string]*applier{}}}
}

// Close ends all calls and closes all connections.
func (c *PeerClient) Close() error { return c.pool.close() }

func (c *PeerClient) service(address string) (peerv1.PeerServiceClient, error) {
	conn, err := c.pool.get(address)
	if err != nil {
		return nil, err
	}
	return peerv1.NewPeerServiceClient(conn), nil
}

// Promise asks the node at address, whose disk is empty, to reserve itself for a cluster about to be bootstrapped.
func (c *PeerClient) Promise(ctx context.Context, address string, promise cluster.Promise) error {
	service, err := c.service(address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	_, err = service.Promise(ctx, promiseMessage(promise))
	return peerError(address, err)
}

// Release gives the promise of the node at address back.
func (c *PeerClient) Release(ctx context.Context, address string, promise cluster.Promise) error {
	service, err := c.service(address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	_, err = service.Release(ctx, &peerv1.ReleaseRequest{ClusterId: promise.ClusterID, Proposer: string(promise.Proposer)})
	return peerError(address, err)
}

// State asks the node at address how far it has come.
func (c *PeerClient) State(ctx context.Context, address string) (cluster.NodeState, error) {
	service, err := c.service(address)
	if err != nil {
		return cluster.NodeState{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	response, err := service.GetState(ctx, &peerv1.GetStateRequest{})
	if err != nil {
		return cluster.NodeState{}, peerError(address, err)
	}
	return parseState(response), nil
}

// HashAt asks the node at address for its running hash at an index. ctx bounds it.
func (c *PeerClient) HashAt(
	ctx context.Context, address string, node catalog.NodeID, index catalog.LogIndex,
) (cluster.Hash, error) {
	service, err := c.service(address)
	if err != nil {
		return cluster.Hash{}, err
	}
	response, err := service.GetHash(ctx, &peerv1.GetHashRequest{Node: string(node), Index: uint64(index)})
	if err != nil {
		return cluster.Hash{}, peerError(address, err)
	}
	if len(response.GetHash()) != len(cluster.Hash{}) {
		return cluster.Hash{}, errdef.New(errdef.Internal, "peer %s sent a hash of %d bytes", address, len(response.GetHash()))
	}
	return cluster.Hash(response.GetHash()), nil
}

// ReadIndex asks the node at address, the leader, for the index of a linearizable read. ctx bounds it.
func (c *PeerClient) ReadIndex(ctx context.Context, address string, witness cluster.Witness) (catalog.LogIndex, error) {
	service, err := c.service(address)
	if err != nil {
		return 0, err
	}
	response, err := service.ReadIndex(ctx, &peerv1.ReadIndexRequest{Node: string(witness.Node), Term: witness.Term})
	if err != nil {
		return 0, peerError(address, err)
	}
	return catalog.LogIndex(response.GetIndex()), nil
}

// Refresh makes the node at address, the owner of key, ask the upstream. See fill.Filler.
func (c *PeerClient) Refresh(
	ctx context.Context, address string, key fill.Key, seen catalog.LogIndex,
) (catalog.LogIndex, error) {
	service, err := c.service(address)
	if err != nil {
		return 0, err
	}
	response, err := service.Refresh(ctx, refreshMessage(key, seen))
	if err != nil {
		return 0, peerError(address, err)
	}
	return catalog.LogIndex(response.GetIndex()), nil
}

// FetchContent streams content from the node at address, which may have to fill it first. ctx bounds the whole reading;
// closing the stream ends the call.
func (c *PeerClient) FetchContent(
	ctx context.Context, address string, key fill.ContentKey, offset int64,
) (*fill.Stream, error) {
	return c.fetch(ctx, address, contentMessage(key, offset))
}

// FetchHeld streams content that the node at address has in its memory or on its disk; it returns the whole size.
// ctx bounds the whole reading; closing the reader ends the call.
func (c *PeerClient) FetchHeld(
	ctx context.Context, address string, dgst digest.Digest, offset int64,
) (io.ReadCloser, int64, error) {
	request := &peerv1.FetchContentRequest{Digest: dgst.String(), Offset: offset, HeldOnly: true}
	stream, err := c.fetch(ctx, address, request)
	if err != nil {
		return nil, 0, err
	}
	return stream.ReadCloser, stream.Descriptor.Size, nil
}

func (c *PeerClient) fetch(
	ctx context.Context, address string, request *peerv1.FetchContentRequest,
) (*fill.Stream, error) {
	service, err := c.service(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := service.FetchContent(ctx, request)
	if err != nil {
		cancel()
		return nil, peerError(address, err)
	}
	first, err := stream.Recv()
	if err != nil {
		cancel()
		return nil, peerError(address, err)
	}
	header := first.GetHeader()
	if header == nil || header.GetSize() < request.GetOffset() {
		cancel()
		return nil, errdef.New(errdef.Internal, "peer %s sent no valid header for %s", address, request.GetDigest())
	}
	recv := func() ([]byte, error) {
		part, err := stream.Recv()
		return part.GetChunk(), peerError(address, err)
	}
	return &fill.Stream{
		ReadCloser: &chunkReader{recv: recv, cancel: cancel, length: header.GetSize() - request.GetOffset()},
		Descriptor: ocispec.Descriptor{
			MediaType: header.GetMediaType(), Digest: digest.Digest(request.GetDigest()), Size: header.GetSize(),
		},
	}, nil
}

// peerError rebuilds the error of a call to the node at address. The end of a stream is no error.
func peerError(address string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	err = errdef.FromGRPC(err)
	if errdef.ReasonOf(err) == errdef.Unavailable {
		return errdef.Wrap(errdef.Unavailable, err, "peer %s", address)
	}
	return err
}
