package node

import (
	"context"
	"io"

	"github.com/ocistern/ocistern/cluster"
	"github.com/ocistern/ocistern/internal/errdef"
)

// SaveSnapshot implements rpc.Snapshots.
func (n *Node) SaveSnapshot(ctx context.Context, to io.Writer, local bool) error {
	return n.cluster.Load().SaveSnapshot(ctx, to, local)
}

// RestoreSnapshot implements rpc.Snapshots for callers: it hands the snapshot to the leader as it arrives.
func (n *Node) RestoreSnapshot(ctx context.Context, from io.Reader, force bool) (cluster.Restored, error) {
	c := n.cluster.Load()
	leader, known := c.Leader()
	switch {
	case !known:
		return cluster.Restored{}, errdef.New(errdef.NoQuorum, "no leader is known").
			WithRemedy("see which nodes are missing: ocistern status")
	case leader.ID == c.Self():
		return c.RestoreLocal(ctx, from, force)
	default:
		return n.peers.RestoreSnapshot(ctx, leader.Addresses.Peer, from, force)
	}
}

// localSnapshots implements rpc.Snapshots for peers: what they hand on must not go round in circles.
type localSnapshots struct{ *cluster.Cluster }

// RestoreSnapshot implements rpc.Snapshots.
func (s localSnapshots) RestoreSnapshot(
	ctx context.Context, from io.Reader, force bool,
) (cluster.Restored, error) {
	return s.RestoreLocal(ctx, from, force)
}
