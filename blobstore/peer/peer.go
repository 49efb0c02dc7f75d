// Package peer moves content between the stores of nodes: Fetch copies content from whichever holder can give it, a
// Replicator keeps small content on this node, and an Announcer tells the catalog what this node holds.
//
// It trusts a peer only as far as the digest. How peers are dialled (package rpc) and how the catalog is changed
// (package cluster) is behind the interfaces Source and Proposer. Packages fill and node call it.
package peer

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/fsm/catalog"
)

// Source reads content from other nodes. Package rpc implements it.
type Source interface {
	// FetchHeld opens content on a node that holds it, from an offset on, and returns the size of the whole in bytes.
	// It fails with NOT_FOUND when the node does not have it. Reads end when ctx does. The caller closes the reader.
	FetchHeld(ctx context.Context, node catalog.NodeID, dgst digest.Digest, offset int64) (io.ReadCloser, int64, error)
}

// Proposer changes the catalog. Package cluster implements it.
type Proposer interface {
	Apply(ctx context.Context, command catalog.Command) (catalog.LogIndex, error)
}
