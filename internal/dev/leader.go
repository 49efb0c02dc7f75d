package dev

import (
	"context"
	"time"

	"github.com/ocistern/ocistern/client"
)

const leaderTimeout = 5 * time.Second

// leaderOf returns the name of the leader, empty when it cannot be learned: the banner does without.
func leaderOf(ctx context.Context, f *fleet) string {
	cluster, err := client.New(f.endpoints().GRPC(), client.WithTimeout(leaderTimeout))
	if err != nil {
		return ""
	}
	defer cluster.Close()
	status, err := cluster.Status(ctx)
	if err != nil {
		return ""
	}
	for _, member := range status.Members {
		if member.Leader {
			return member.Name
		}
	}
	return ""
}
