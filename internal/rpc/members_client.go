package rpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/ocistern/ocistern/cluster"
	"github.com/ocistern/ocistern/fsm/catalog"
	membersv1 "github.com/ocistern/ocistern/internal/proto/ocistern/members/v1"
	peerv1 "github.com/ocistern/ocistern/internal/proto/ocistern/peer/v1"
)

// Retire makes the node at address, which must be the one that is meant, leave the cluster for good.
func (c *PeerClient) Retire(ctx context.Context, address string, node catalog.NodeID) error {
	service, err := c.service(address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	_, err = service.Retire(ctx, &peerv1.RetireRequest{Node: string(node)})
	return peerError(address, err)
}

// Survey asks the node at address, the leader, for the members as it sees them. ctx bounds it. Their peer and gossip
// addresses are not told.
func (c *PeerClient) Survey(ctx context.Context, address string) ([]cluster.Member, error) {
	conn, err := c.pool.get(address)
	if err != nil {
		return nil, err
	}
	response, err := membersv1.NewMembersServiceClient(conn).ListMembers(ctx, &membersv1.ListMembersRequest{})
	if err != nil {
		return nil, peerError(address, err)
	}
	var members []cluster.Member
	for _, view := range response.GetMembers() {
		members = append(members, parseMember(view))
	}
	return members, nil
}

// Operate has the node at address, the leader, carry out an operation. ctx bounds it. It fails with OUTCOME_UNKNOWN when
// the node may have carried it out although no answer came.
func (c *PeerClient) Operate(
	ctx context.Context, address string, operation cluster.Operation,
) (catalog.NodeID, error) {
	conn, err := c.pool.get(address)
	if err != nil {
		return "", err
	}
	var reached peer.Peer
	response, err := membersv1.NewMembersServiceClient(conn).Operate(ctx, &membersv1.OperateRequest{
		Kind: string(operation.Kind), Node: operation.Node, By: operation.By,
	}, grpc.Peer(&reached))
	if err != nil {
		return "", changeError(address, err, reached.Addr != nil)
	}
	return catalog.NodeID(response.GetNode()), nil
}
