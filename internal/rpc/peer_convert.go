package rpc

import (
	"github.com/ocistern/ocistern/cluster"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/fill"
	peerv1 "github.com/ocistern/ocistern/internal/proto/ocistern/peer/v1"
	"github.com/ocistern/ocistern/internal/reference"
)

func refreshMessage(key fill.Key, seen catalog.LogIndex) *peerv1.RefreshRequest {
	return &peerv1.RefreshRequest{
		Tenant: string(key.Tenant), Repository: string(key.Repository), Kind: peerv1.RefreshKind(key.Kind),
		Reference: key.Reference, SeenIndex: uint64(seen),
	}
}

func parseRefresh(message *peerv1.RefreshRequest) (fill.Key, error) {
	tenant, repository, err := parseNames(message.GetTenant(), message.GetRepository())
	if err != nil {
		return fill.Key{}, err
	}
	key := fill.Key{Tenant: tenant, Repository: repository, Reference: message.GetReference()}
	switch message.GetKind() {
	case peerv1.RefreshKind_REFRESH_KIND_TAG:
		key.Kind = fill.KindTag
		_, err = reference.ParseTag(key.Reference)
	case peerv1.RefreshKind_REFRESH_KIND_REFERRERS:
		key.Kind = fill.KindReferrers
		_, err = reference.ParseDigest(key.Reference)
	default:
		err = errdef.New(errdef.Unsupported, "this node cannot refresh what is of kind %d", message.GetKind())
	}
	return key, err
}

func contentMessage(key fill.ContentKey, offset int64) *peerv1.FetchContentRequest {
	return &peerv1.FetchContentRequest{
		Tenant: string(key.Tenant), Repository: string(key.Repository), Kind: peerv1.ContentKind(key.Kind),
		Digest: key.Digest.String(), Offset: offset,
	}
}

func parseContent(message *peerv1.FetchContentRequest) (fill.ContentKey, error) {
	tenant, repository, err := parseNames(message.GetTenant(), message.GetRepository())
	if err != nil {
		return fill.ContentKey{}, err
	}
	key := fill.ContentKey{Tenant: tenant, Repository: repository}
	switch message.GetKind() {
	case peerv1.ContentKind_CONTENT_KIND_MANIFEST:
		key.Kind = fill.ContentManifest
	case peerv1.ContentKind_CONTENT_KIND_BLOB:
		key.Kind = fill.ContentBlob
	default:
		return key, errdef.New(errdef.Unsupported, "this node cannot fetch what is of kind %d", message.GetKind())
	}
	key.Digest, err = reference.ParseDigest(message.GetDigest())
	return key, err
}

func parseNames(tenantText, repositoryText string) (reference.Tenant, reference.Repository, error) {
	tenant, err := reference.ParseTenant(tenantText)
	if err != nil {
		return "", "", err
	}
	repository, err := reference.ParseRepository(repositoryText)
	return tenant, repository, err
}

func promiseMessage(promise cluster.Promise) *peerv1.PromiseRequest {
	message := &peerv1.PromiseRequest{ClusterId: promise.ClusterID, Proposer: string(promise.Proposer)}
	for _, candidate := range promise.Candidates {
		message.Candidates = append(message.Candidates, &peerv1.Candidate{
			Id: string(candidate.ID), RaftAddress: candidate.RaftAddress,
		})
	}
	return message
}

func parsePromise(message *peerv1.PromiseRequest) cluster.Promise {
	promise := cluster.Promise{ClusterID: message.GetClusterId(), Proposer: catalog.NodeID(message.GetProposer())}
	for _, candidate := range message.GetCandidates() {
		promise.Candidates = append(promise.Candidates, cluster.Candidate{
			ID: catalog.NodeID(candidate.GetId()), RaftAddress: candidate.GetRaftAddress(),
		})
	}
	return promise
}

func stateMessage(state cluster.NodeState) *peerv1.GetStateResponse {
	return &peerv1.GetStateResponse{
		Id: string(state.ID), ClusterId: state.ClusterID, Empty: state.Empty,
		AppliedIndex: uint64(state.Applied), LastIndex: uint64(state.Last), Term: state.Term,
		FeatureLevel: uint32(state.FeatureLevel), Retired: state.Retired,
	}
}

func parseState(message *peerv1.GetStateResponse) cluster.NodeState {
	return cluster.NodeState{
		ID: catalog.NodeID(message.GetId()), ClusterID: message.GetClusterId(), Empty: message.GetEmpty(),
		Applied: catalog.LogIndex(message.GetAppliedIndex()), Last: catalog.LogIndex(message.GetLastIndex()),
		Term: message.GetTerm(), FeatureLevel: catalog.FeatureLevel(message.GetFeatureLevel()),
		Retired: message.GetRetired(),
	}
}
