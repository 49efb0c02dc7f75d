package node

import (
	"context"
	"encoding/hex"

	"github.com/ocistern/ocistern/fsm/catalog"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
	"github.com/ocistern/ocistern/internal/rpc"
)

// Status implements rpc.StatusReporter. It answers whether or not the node is ready.
func (n *Node) Status(_ context.Context, catalogDigest bool) (*registryv1.GetStatusResponse, error) {
	c, snapshot := n.cluster.Load(), n.catalog.Snapshot()
	raft := c.Status()
	response := &registryv1.GetStatusResponse{
		Version: n.options.Version, ClusterId: c.ClusterID(), Leader: string(raft.Leader), Term: raft.Term,
		Catalog: catalogMessage(snapshot), Content: n.contentMessage(),
		FeatureLevel: uint32(raft.FeatureLevel), SupportedFeatureLevel: uint32(raft.Supported),
		Notices: c.Notices(),
	}
	if compared, ever := c.Compared(); ever {
		response.Catalog.Comparison = &registryv1.Comparison{
			Index: uint64(compared.Index), Voters: uint32(compared.Voters), Told: uint32(compared.Told),
			Equal: uint32(compared.Equal), Disputed: compared.Disputed,
		}
	}
	for _, member := range c.Members() {
		message := rpc.MemberMessage(member)
		if member.ID == c.Self() {
			message.AppliedIndex = uint64(snapshot.Index())
			response.Node = message
		}
		response.Members = append(response.Members, message)
	}
	for _, u := range n.config.Upstreams {
		response.Upstreams = append(response.Upstreams, &registryv1.Upstream{
			Name: u.Name, Url: u.URL, Requests: n.metrics.upstreamTotal.of(u.Name),
		})
	}
	if catalogDigest {
		dgst, err := snapshot.Digest()
		if err != nil {
			return nil, err
		}
		response.Catalog.Digest = dgst.String()
	}
	return response, nil
}

func catalogMessage(snapshot *catalog.Snapshot) *registryv1.Catalog {
	stats, hash := snapshot.Stats(), snapshot.CommandHash()
	return &registryv1.Catalog{
		Index: uint64(snapshot.Index()), Tags: uint64(stats.Tags), Manifests: uint64(stats.Manifests),
		ReferrersLists: uint64(stats.Referrers), Absences: uint64(stats.Absences), Blobs: uint64(stats.Blobs),
		Links: uint64(stats.Links), CommandHash: hex.EncodeToString(hash[:]),
	}
}

func (n *Node) contentMessage() *registryv1.Content {
	usage := n.store.Usage()
	free, full, err := n.store.Space()
	if err != nil {
		n.options.Logger.Warn("the free space is not known", "error", err)
	}
	return &registryv1.Content{
		Blobs: uint64(usage.Blobs), Bytes: uint64(usage.Bytes), MemoryBytes: uint64(usage.MemoryBytes),
		FreeBytes: uint64(free), Full: full, ReserveGivenUp: n.cluster.Load().ReserveGivenUp(),
	}
}
