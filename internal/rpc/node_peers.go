package rpc

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"

	blobpeer "github.com/ocistern/ocistern/blobstore/peer"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/fill"
)

// NodePeers calls other nodes by their id. It implements fill.Peers and the sources that content is read from.
type NodePeers struct {
	client  *PeerClient
	address func(catalog.NodeID) (string, bool)
}

var (
	_ fill.Peers      = (*NodePeers)(nil)
	_ fill.Holders    = (*NodePeers)(nil)
	_ blobpeer.Source = (*NodePeers)(nil)
)

// NewNodePeers returns a NodePeers that finds a node's peer address by a function, which returns false for a node that
// is not among the members. It is called on every call.
func NewNodePeers(client *PeerClient, address func(catalog.NodeID) (string, bool)) *NodePeers {
	return &NodePeers{client: client, address: address}
}

// Refresh implements fill.Peers.
func (p *NodePeers) Refresh(
	ctx context.Context, node catalog.NodeID, key fill.Key, seen catalog.LogIndex,
) (catalog.LogIndex, error) {
	address, err := p.find(node)
	if err != nil {
		return 0, err
	}
	return p.client.Refresh(ctx, address, key, seen)
}

// FetchContent implements fill.Peers.
func (p *NodePeers) FetchContent(
	ctx context.Context, node catalog.NodeID, key fill.ContentKey, offset int64,
) (*fill.Stream, error) {
	address, err := p.find(node)
	if err != nil {
		return nil, err
	}
	return p.client.FetchContent(ctx, address, key, offset)
}

// FetchHeld implements fill.Holders and blobstore/peer.Source.
func (p *NodePeers) FetchHeld(
	ctx context.Context, node catalog.NodeID, dgst digest.Digest, offset int64,
) (io.ReadCloser, int64, error) {
	address, err := p.find(node)
	if err != nil {
		return nil, 0, err
	}
	return p.client.FetchHeld(ctx, address, dgst, offset)
}

func (p *NodePeers) find(node catalog.NodeID) (string, error) {
	address, ok := p.address(node)
	if !ok || address == "" {
		return "", errdef.New(errdef.Unavailable, "node %s is not among the members", node)
	}
	return address, nil
}
