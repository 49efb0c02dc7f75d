package testnode

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ocistern/ocistern/internal/errdef"
	membersv1 "github.com/ocistern/ocistern/internal/proto/ocistern/members/v1"
)

// members answers operators from the status that was set.
type members struct {
	membersv1.UnimplementedMembersServiceServer
	node *Node
}

// ListMembers implements the members service. Who is not alive has been silent for ten minutes.
func (m members) ListMembers(
	ctx context.Context, _ *membersv1.ListMembersRequest,
) (*membersv1.ListMembersResponse, error) {
	if err := m.node.enter(ctx, Call{Method: "ListMembers"}); err != nil {
		return nil, errdef.ToGRPC(err)
	}
	m.node.mu.Lock()
	defer m.node.mu.Unlock()
	response := &membersv1.ListMembersResponse{}
	for _, member := range m.node.status.GetMembers() {
		view := &membersv1.MemberView{Member: member}
		if member.GetState() == "alive" {
			view.FeatureLevel = 2
		} else {
			view.Silence = durationpb.New(10 * time.Minute)
		}
		response.Members = append(response.Members, view)
	}
	return response, nil
}

// Operate implements the members service: it changes nothing.
func (m members) Operate(
	ctx context.Context, request *membersv1.OperateRequest,
) (*membersv1.OperateResponse, error) {
	if err := m.node.enter(ctx, Call{Method: "Operate " + request.GetKind()}); err != nil {
		return nil, errdef.ToGRPC(err)
	}
	return &membersv1.OperateResponse{Node: request.GetNode() + request.GetBy()}, nil
}
