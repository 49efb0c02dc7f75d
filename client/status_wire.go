package client

import (
	"context"

	"github.com/ocistern/ocistern/internal/errdef"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
)

func getStatus(ctx context.Context, api registryv1.RegistryServiceClient, opts []StatusOption) (*Status, error) {
	var chosen statusOptions
	for _, option := range opts {
		option(&chosen)
	}
	answer, err := api.GetStatus(ctx, &registryv1.GetStatusRequest{CatalogDigest: chosen.catalogDigest})
	if err != nil {
		return nil, errdef.FromGRPC(err)
	}
	return statusOf(answer), nil
}

func statusOf(s *registryv1.GetStatusResponse) *Status {
	status := &Status{
		Version: s.GetVersion(), ClusterID: s.GetClusterId(), Leader: s.GetLeader(), Term: s.GetTerm(),
		FeatureLevel: s.GetFeatureLevel(), SupportedFeatureLevel: s.GetSupportedFeatureLevel(),
		Notices: s.GetNotices(), Node: memberOf(s.GetNode()), Catalog: catalogOf(s.GetCatalog()),
		Content: ContentStatus{
			Blobs: s.GetContent().GetBlobs(), Bytes: s.GetContent().GetBytes(), MemoryBytes: s.GetContent().GetMemoryBytes(),
			FreeBytes: s.GetContent().GetFreeBytes(), Full: s.GetContent().GetFull(),
			ReserveGivenUp: s.GetContent().GetReserveGivenUp(),
		},
		Members: []Member{}, Upstreams: []UpstreamStatus{}, // never null in JSON
	}
	for _, member := range s.GetMembers() {
		status.Members = append(status.Members, memberOf(member))
	}
	for _, u := range s.GetUpstreams() {
		upstream := UpstreamStatus{Name: u.GetName(), URL: u.GetUrl(), Requests: u.GetRequests()}
		status.Upstreams = append(status.Upstreams, upstream)
	}
	return status
}

func memberOf(m *registryv1.Member) Member {
	return Member{
		ID: m.GetId(), Name: m.GetName(), Role: m.GetRole(), Leader: m.GetLeader(), State: m.GetState(),
		AppliedIndex: m.GetAppliedIndex(), RaftAddress: m.GetRaftAddress(), GRPCAddress: m.GetGrpcAddress(),
		RegistryAddress: m.GetRegistryAddress(),
	}
}

func catalogOf(c *registryv1.Catalog) CatalogStatus {
	return CatalogStatus{
		Index: c.GetIndex(), Tags: c.GetTags(), Manifests: c.GetManifests(), ReferrersLists: c.GetReferrersLists(),
		Absences: c.GetAbsences(), Blobs: c.GetBlobs(), Links: c.GetLinks(),
		CommandHash: c.GetCommandHash(), Digest: c.GetDigest(), Comparison: comparisonOf(c.GetComparison()),
	}
}

func comparisonOf(c *registryv1.Comparison) *Comparison {
	if c == nil {
		return nil
	}
	return &Comparison{
		Index: c.GetIndex(), Voters: c.GetVoters(), Told: c.GetTold(), Equal: c.GetEqual(), Disputed: c.GetDisputed(),
	}
}
