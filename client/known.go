package client

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/gather"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
)

// namesTogether is how many names are resolved in one call at most. A request of that many is far from too large for a node.
const namesTogether = 64

// told is what a node tells about one name, and the catalog index that it must have seen. answer is nil for nothing.
type told struct {
	answer *registryv1.ResolveResponse
	asked  uint64
}

// gatherer makes those who resolve at the same time share calls to a node. It is only for what the node knows at once: a
// name that must be asked of an upstream first does not hold up the others.
type gatherer = gather.Gatherer[*registryv1.ResolveKnownRequest_Name, told]

func (c *Client) gatherAt(node *endpoint) *gatherer {
	return gather.New(gather.Config[*registryv1.ResolveKnownRequest_Name, told]{
		Call: func(ctx context.Context, names []*registryv1.ResolveKnownRequest_Name) ([]told, error) {
			return c.resolveKnown(ctx, node, names)
		},
		Weight:   func(*registryv1.ResolveKnownRequest_Name) int { return 1 },
		Capacity: namesTogether, Lanes: 1,
	})
}

func (c *Client) resolveKnown(
	ctx context.Context, node *endpoint, names []*registryv1.ResolveKnownRequest_Name,
) ([]told, error) {
	ctx, cancel := context.WithTimeout(ctx, c.options.attemptTimeout)
	defer cancel()
	target, all := c.level(), make([]told, len(names))
	response, err := node.api.ResolveKnown(ctx, &registryv1.ResolveKnownRequest{Target: target, Names: names})
	if status.Code(err) == codes.Unimplemented { // an older node: it is asked for each name
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	if len(response.GetAnswers()) != len(names) {
		return nil, misbehaved{errdef.New(errdef.Internal, "node at %s sent %d answers to %d questions",
			node.address, len(response.GetAnswers()), len(names))}
	}
	for i, answer := range response.GetAnswers() {
		if answer.GetDescriptor_() != nil {
			all[i] = told{answer: answer, asked: target.GetMinIndex()}
		}
	}
	return all, nil
}

// resolve asks one node.
func (r *Repository) resolve(ctx context.Context, node *endpoint, tagOrDigest string) (told, error) {
	known, err := node.known.Ask(ctx, &registryv1.ResolveKnownRequest_Name{
		Repository: string(r.name), Reference: tagOrDigest,
	})
	if err != nil || known.answer != nil {
		return known, err
	}
	target := r.target(tagOrDigest)
	answer, err := node.api.Resolve(ctx, &registryv1.ResolveRequest{Target: target})
	return told{answer: answer, asked: target.GetMinIndex()}, err
}

// level is a target without a name: who asks, and how current the answer must be.
func (c *Client) level() *registryv1.Target {
	return &registryv1.Target{
		Tenant: string(c.options.tenant), MinIndex: c.session.seen(), Level: c.options.level, MaxAge: c.options.maxAge,
	}
}
