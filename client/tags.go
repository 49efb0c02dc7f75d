package client

import (
	"context"

	"github.com/ocistern/ocistern/internal/errdef"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
)

// tagsPage is how many tags are asked for at once; a node may send fewer.
const tagsPage = 1000

// Tags calls fn with page after page of the tags that sort after last, in byte order; from the first when last is
// empty. They are the tags the cluster knows; the upstream may have more. An error of fn ends the walk and is returned.
func (r *Repository) Tags(ctx context.Context, last string, fn func(tags []string) error) error {
	for more := true; more; {
		var page *registryv1.ListTagsResponse
		err := r.client.call(ctx, func(ctx context.Context, api registryv1.RegistryServiceClient) (err error) {
			target := r.target("")
			page, err = api.ListTags(ctx, &registryv1.ListTagsRequest{Target: target, Last: last, Limit: tagsPage})
			if err != nil {
				return err
			}
			return r.client.session.accept(target.GetMinIndex(), page.GetProvenance())
		})
		if err != nil {
			return err
		}
		more = page.GetMore()
		if len(page.GetTags()) == 0 {
			if more {
				return errdef.New(errdef.Internal, "node promised more tags after %q and sent none", last)
			}
			return nil
		}
		if err := fn(page.GetTags()); err != nil {
			return err
		}
		last = page.GetTags()[len(page.GetTags())-1]
	}
	return nil
}
