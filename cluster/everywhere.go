package cluster

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ocistern/ocistern/fsm/catalog"
)

// Everywhere waits until every member of the Raft configuration that may answer callers has applied an index, and returns
// those that have not said so when ctx ends: nil for none. Dead members and those that have shut down are not waited for: a
// node that starts answers nobody before it has caught up.
func (c *Cluster) Everywhere(ctx context.Context, index catalog.LogIndex) []Member {
	var (
		asking sync.WaitGroup
		// mutex guards behind.
		mutex  sync.Mutex
		behind []Member
	)
	for _, m := range c.Members() {
		if m.Role == RoleNone || m.State == StateDead || m.State == StateLeft {
			continue
		}
		asking.Go(func() {
			if !c.reaches(ctx, m, index) {
				mutex.Lock()
				behind = append(behind, m)
				mutex.Unlock()
			}
		})
	}
	asking.Wait()
	slices.SortFunc(behind, func(a, b Member) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return behind
}

// reaches tells whether a member has applied an index before ctx ends.
func (c *Cluster) reaches(ctx context.Context, m Member, index catalog.LogIndex) bool {
	if m.ID == c.Self() {
		_, err := c.catalog.Wait(ctx, index)
		return err == nil
	}
	ticker := time.NewTicker(retryPause)
	defer ticker.Stop()
	for {
		state, err := c.peers.State(ctx, m.Addresses.Peer)
		if err == nil && state.ID == m.ID && state.Applied >= index {
			return true
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return false
		}
	}
}
