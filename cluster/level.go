package cluster

import (
	"context"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// offered returns the highest feature level that this node lets its cluster rise to. A level that was reached is always
// offered: it cannot be lowered.
func (c *Cluster) offered() catalog.FeatureLevel {
	offer := fsm.MaxLevel
	if limit := c.config.FeatureLevel; limit != 0 {
		offer = min(offer, limit)
	}
	return max(offer, c.catalog.Snapshot().FeatureLevel())
}

// offers returns the level that a node told. Builds that know no levels tell none.
func (s NodeState) offers() catalog.FeatureLevel { return max(s.FeatureLevel, catalog.LevelFirst) }

// raiseLevel raises the feature level of the cluster to what every node in the Raft configuration offers, on the leader.
// Each is asked; one that does not answer holds the level back, since nobody knows what it will be when it returns.
func (c *Cluster) raiseLevel() error {
	c.raising.Lock()
	defer c.raising.Unlock()
	level, common := c.catalog.Snapshot().FeatureLevel(), c.offered()
	if common <= level {
		return nil
	}
	ctx, cancel := c.callContext()
	defer cancel()
	servers := c.servers()
	offers := make([]catalog.FeatureLevel, len(servers))
	var asked errgroup.Group
	for i, server := range servers {
		asked.Go(func() (err error) {
			offers[i], err = c.askLevel(ctx, server)
			return err
		})
	}
	if err := asked.Wait(); err != nil {
		return err
	}
	for i, offer := range offers {
		if common = min(common, offer); common <= level {
			return errdef.New(errdef.NotReady, "node %s offers level %d only", servers[i].ID, offer)
		}
	}
	command, err := fsm.Encode(catalog.RaiseLevel{Level: common})
	if err != nil {
		return err
	}
	if err = c.propose(ctx, command); err == nil {
		c.logger.Info("feature level raised", "from", level, "to", common)
	}
	return err
}

func (c *Cluster) askLevel(ctx context.Context, server raft.Server) (catalog.FeatureLevel, error) {
	id := catalog.NodeID(server.ID)
	if id == c.Self() {
		return c.offered(), nil
	}
	if s, _ := c.gossip.sighting(id); s.State != StateAlive { // not worth the wait
		return 0, errdef.New(errdef.Unavailable, "node %s is not alive", id)
	}
	state, err := c.askState(ctx, id)
	return state.offers(), err
}

// admissible refuses a node that would not understand the entries of this cluster. A raise may be in the log already, of an
// earlier leader or of unknown outcome: what stands before a barrier is applied after it. This leader begins no other one
// meanwhile, since steer does both.
func (c *Cluster) admissible(ctx context.Context, state NodeState) error {
	level := c.catalog.Snapshot().FeatureLevel()
	if offered := state.offers(); level <= offered && offered < fsm.MaxLevel {
		if err := c.settle(ctx, c.raft.Barrier(c.config.Timings.Call)); err != nil {
			return err
		}
		level = c.catalog.Snapshot().FeatureLevel()
	}
	if state.offers() < level {
		return errdef.New(errdef.VersionTooOld, "node %s supports feature level %d, cluster %s is at level %d",
			state.ID, state.offers(), c.ClusterID(), level).WithRemedy("run the version that the other nodes run there")
	}
	return nil
}

// tellHeldBack says once, for people, what keeps the feature level down or a node out.
func (c *Cluster) tellHeldBack(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if last := c.heldBack.Swap(&text); err != nil && (last == nil || *last != text) {
		c.logger.Warn("held back", "level", c.catalog.Snapshot().FeatureLevel(), "error", text)
	}
}
