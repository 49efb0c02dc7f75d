package node

import (
	"cmp"
	"context"

	"github.com/ocistern/ocistern/cluster"
	"github.com/ocistern/ocistern/fsm/catalog"
)

// followers is registry.Followers.
type followers struct{ cluster *cluster.Cluster }

// Lagging implements registry.Followers.
func (f followers) Lagging(ctx context.Context, index catalog.LogIndex) []string {
	var names []string
	for _, member := range f.cluster.Everywhere(ctx, index) {
		names = append(names, cmp.Or(member.Name, string(member.ID)))
	}
	return names
}
