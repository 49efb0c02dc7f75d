package client

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/ocistern/ocistern/internal/errdef"
	membersv1 "github.com/ocistern/ocistern/internal/proto/ocistern/members/v1"
)

// MemberView is a member as the leader sees it.
type MemberView struct {
	Member
	// SilentSeconds is for how long it has answered no heartbeat of the leader; zero for the leader itself.
	SilentSeconds float64 `json:"silentSeconds"`
	// FeatureLevel is the highest one that the member lets the cluster rise to; zero where it did not answer.
	FeatureLevel uint32 `json:"featureLevel"`
}

// Members returns all members, with the index that each has applied where it answered. None of them leads when no leader
// could be asked: then this is the view of the node that answered.
func (c *Client) Members(ctx context.Context) ([]MemberView, error) {
	members := []MemberView{} // never null in JSON
	err := c.callNode(ctx, c.sticky(), func(ctx context.Context, node *endpoint) error {
		answer, err := membersv1.NewMembersServiceClient(node.conn).ListMembers(ctx, &membersv1.ListMembersRequest{})
		for _, view := range answer.GetMembers() {
			members = append(members, MemberView{
				Member: memberOf(view.GetMember()), SilentSeconds: view.GetSilence().AsDuration().Seconds(),
				FeatureLevel: view.GetFeatureLevel(),
			})
		}
		return err
	})
	return members, err
}

// Leave makes a living member leave the cluster for good, and returns when it is out. A nonvoter takes the place of a voter
// where there is one. The node stays up, is not ready, and does not join again on its data directory. A member is named by
// id, or by name where that is unique.
//
// This and the methods below return the id of the member concerned. They fail with ErrNotFound for a member that is not
// there, ErrQuorumAtRisk, ErrMemberAlive where only a dead one may be named, and ErrNotReady when a member that has to take
// part does not answer or is not caught up. Where they may have been carried out and no answer came, they fail with
// ErrOutcomeUnknown: Members tells, and they may be repeated.
func (c *Client) Leave(ctx context.Context, member string) (id string, err error) {
	return c.operate(ctx, &membersv1.OperateRequest{Kind: "leave", Node: member})
}

// Remove removes a dead member.
func (c *Client) Remove(ctx context.Context, member string) (id string, err error) {
	return c.operate(ctx, &membersv1.OperateRequest{Kind: "remove", Node: member})
}

// Replace puts a nonvoter in the place of a dead voter, any where by is empty.
func (c *Client) Replace(ctx context.Context, member, by string) (id string, err error) {
	return c.operate(ctx, &membersv1.OperateRequest{Kind: "replace", Node: member, By: by})
}

// TransferLeadership hands the leadership to a voter, any where to is empty, and returns the id of the new leader.
func (c *Client) TransferLeadership(ctx context.Context, to string) (id string, err error) {
	return c.operate(ctx, &membersv1.OperateRequest{Kind: "transfer", Node: to})
}

// operate tries one endpoint after the other until one takes the order: unlike a question, it is not given again when it
// may have been carried out. Each may take the whole time, since members change slowly.
func (c *Client) operate(ctx context.Context, request *membersv1.OperateRequest) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.options.timeout)
	defer cancel()
	var telling error
	for _, i := range c.pool.order(time.Now()) {
		node := c.pool.endpoints[i]
		var reached peer.Peer
		answer, err := membersv1.NewMembersServiceClient(node.conn).Operate(ctx, request, grpc.Peer(&reached))
		if err == nil {
			return answer.GetNode(), nil
		}
		taken := reached.Addr != nil && len(status.Convert(err).Details()) == 0 // and what became of it, nobody told
		err = errdef.FromGRPC(err)
		if ctx.Err() != nil {
			return "", ended(ctx, err)
		}
		reason := errdef.ReasonOf(err)
		if reason == errdef.Unavailable && taken {
			return "", errdef.Wrap(errdef.OutcomeUnknown, err, "node at %s took the order and gave no answer", node.address).
				WithRemedy("see how far it came: ocistern members")
		}
		if reason != errdef.Unavailable && reason != errdef.NoQuorum {
			return "", err
		}
		c.putAside(i, err)
		telling = moreTelling(telling, describe(node, err))
	}
	return "", telling
}

// Led returns ErrNoQuorum when none of the members leads.
func Led(members []MemberView) error {
	if slices.ContainsFunc(members, func(m MemberView) bool { return m.Leader }) {
		return nil
	}
	return errdef.New(errdef.NoQuorum, "no leader could be asked: this is what one node knows").
		WithRemedy("start more than half of the voters")
}
