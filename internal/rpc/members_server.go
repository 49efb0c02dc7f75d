package rpc

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ocistern/ocistern/cluster"
	"github.com/ocistern/ocistern/fsm/catalog"
	membersv1 "github.com/ocistern/ocistern/internal/proto/ocistern/members/v1"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
)

// Members is what operators ask about the members of the cluster. Package cluster implements it, through the leader.
type Members interface {
	Survey(ctx context.Context) ([]cluster.Member, error)
	Operate(ctx context.Context, operation cluster.Operation) (catalog.NodeID, error)
}

// leaderMembers is Members for peers, which have found the leader already.
type leaderMembers struct{ leader Leader }

func (m leaderMembers) Survey(ctx context.Context) ([]cluster.Member, error) {
	return m.leader.SurveyLocal(ctx)
}

func (m leaderMembers) Operate(ctx context.Context, operation cluster.Operation) (catalog.NodeID, error) {
	return m.leader.OperateLocal(ctx, operation)
}

type membersService struct {
	membersv1.UnimplementedMembersServiceServer
	members Members
}

// ListMembers implements the members service.
func (s *membersService) ListMembers(
	ctx context.Context, _ *membersv1.ListMembersRequest,
) (*membersv1.ListMembersResponse, error) {
	members, err := s.members.Survey(ctx)
	if err != nil {
		return nil, err
	}
	response := &membersv1.ListMembersResponse{}
	for _, member := range members {
		response.Members = append(response.Members, &membersv1.MemberView{
			Member: MemberMessage(member), Silence: durationpb.New(member.Silence), FeatureLevel: uint32(member.Level),
		})
	}
	return response, nil
}

// Operate implements the members service.
func (s *membersService) Operate(
	ctx context.Context, request *membersv1.OperateRequest,
) (*membersv1.OperateResponse, error) {
	node, err := s.members.Operate(ctx, cluster.Operation{
		Kind: cluster.OperationKind(request.GetKind()), Node: request.GetNode(), By: request.GetBy(),
	})
	return &membersv1.OperateResponse{Node: string(node)}, err
}

// MemberMessage is a member on the wire.
func MemberMessage(m cluster.Member) *registryv1.Member {
	return &registryv1.Member{
		Id: string(m.ID), Name: m.Name, Role: string(m.Role), Leader: m.Leader, State: string(m.State),
		AppliedIndex: uint64(m.Applied), RaftAddress: m.Addresses.Raft, GrpcAddress: m.Addresses.GRPC,
		RegistryAddress: m.Addresses.Registry,
	}
}

func parseMember(view *membersv1.MemberView) cluster.Member {
	m := view.GetMember()
	return cluster.Member{
		ID: catalog.NodeID(m.GetId()), Name: m.GetName(), Role: cluster.Role(m.GetRole()), Leader: m.GetLeader(),
		State: cluster.State(m.GetState()), Applied: catalog.LogIndex(m.GetAppliedIndex()),
		Silence: view.GetSilence().AsDuration(), Level: catalog.FeatureLevel(view.GetFeatureLevel()),
		Addresses: cluster.Addresses{
			Raft: m.GetRaftAddress(), GRPC: m.GetGrpcAddress(), Registry: m.GetRegistryAddress(),
		},
	}
}
