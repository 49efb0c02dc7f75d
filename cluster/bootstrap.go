package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// seek takes one step of a node that belongs to no cluster yet. It never makes one unless Config.Expect nodes with
// empty disks, this one among them, have each promised themselves to it, durably.
func (c *Cluster) seek(ctx context.Context) error {
	now := c.identity.current()
	promised := now.Promise
	switch {
	case now.Rejoin != nil:
		c.await(fmt.Sprintf("waiting to be added to cluster %s by its leader, in the place of node %s, whose raft state is gone",
			now.Rejoin.ClusterID, now.Rejoin.Was))
		return nil
	case promised == nil:
		found, obstacle := c.candidates()
		if obstacle != "" {
			c.await(obstacle)
			return nil
		}
		p := Promise{ClusterID: newID(), Proposer: c.Self(), Candidates: found}
		if err := c.identity.pledge(p); err != nil {
			return err
		}
		c.gossip.announce()
		return c.found(ctx, p)
	case promised.Proposer == c.Self(): // something came between the promises and the membership
		return c.resume(ctx, *promised)
	default:
		return c.review(ctx, *promised)
	}
}

// resume finishes what this node began. Once Raft has the configuration of a cluster, its promise is never withdrawn.
func (c *Cluster) resume(ctx context.Context, p Promise) error {
	bootstrapped, err := c.storage.hasState()
	switch {
	case err != nil:
		return err
	case bootstrapped:
		return c.identity.join(p.ClusterID)
	default:
		return c.found(ctx, p)
	}
}

// candidates returns the voters that this node should propose, or what is in the way.
func (c *Cluster) candidates() (found []Candidate, obstacle string) {
	if obstacle := c.obstacle(); obstacle != "" {
		return nil, obstacle
	}
	found = []Candidate{{ID: c.Self(), RaftAddress: c.config.Advertise.Raft}}
	for id, s := range c.gossip.seen() {
		if s.State == StateAlive && s.empty() {
			found = append(found, Candidate{ID: id, RaftAddress: s.Raft})
		}
	}
	slices.SortFunc(found, func(a, b Candidate) int { return strings.Compare(string(a.ID), string(b.ID)) })
	switch {
	case len(found) < c.config.Expect:
		return nil, fmt.Sprintf("found %d of %d nodes with an empty disk", len(found), c.config.Expect)
	case len(found) > c.config.Expect:
		return nil, fmt.Sprintf("found %d nodes with an empty disk where cluster.expect is %d: "+
			"start only that many first, or correct cluster.expect", len(found), c.config.Expect)
	case sharedAddress(found) != "":
		return nil, fmt.Sprintf("two nodes advertise the raft address %s", sharedAddress(found))
	case found[0].ID != c.Self():
		return nil, fmt.Sprintf("node %s, whose id is the lowest, is to bootstrap the cluster", found[0].ID)
	}
	return found, ""
}

func sharedAddress(candidates []Candidate) string {
	seen := map[string]bool{}
	for _, candidate := range candidates {
		if seen[candidate.RaftAddress] {
			return candidate.RaftAddress
		}
		seen[candidate.RaftAddress] = true
	}
	return ""
}

// obstacle returns why this node can take no part in a bootstrap now, empty when it can.
func (c *Cluster) obstacle() string {
	if !c.gossip.complete.Load() {
		return "not every address in cluster.join has answered: there may be a cluster already"
	}
	promised := ""
	for _, s := range c.gossip.seen() {
		switch {
		case s.member(): // dead or alive: what was seen once exists
			return fmt.Sprintf("waiting to be added to cluster %s by its leader", s.Cluster)
		case s.Promised && s.State == StateAlive:
			promised = "other nodes are bootstrapping a cluster"
		}
	}
	return promised
}

// found asks all others for their promise and bootstraps the cluster, or gives it up for ever.
func (c *Cluster) found(ctx context.Context, p Promise) error {
	refusal := c.eachOther(p, func(address string) error { return c.peers.Promise(ctx, address, p) })
	if refusal != nil {
		c.await(refusal.Error())
		// First on this disk: from here on nobody can bootstrap this cluster, since its id is never drawn again.
		if err := c.identity.withdraw(p.ClusterID); err != nil {
			return err
		}
		if err := c.eachOther(p, func(address string) error { return c.peers.Release(ctx, address, p) }); err != nil {
			c.logger.Debug("a candidate will have to ask whether it is released", "error", err)
		}
		return nil
	}
	configuration := raft.Configuration{}
	for _, candidate := range p.Candidates {
		configuration.Servers = append(configuration.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(candidate.ID), Address: raft.ServerAddress(candidate.RaftAddress),
		})
	}
	// Waited for without a deadline: whether Raft has bootstrapped must be known before anything else is done.
	if err := c.raft.BootstrapCluster(configuration).Error(); err != nil {
		return errdef.Wrap(errdef.Internal, err, "bootstrap of cluster %s", p.ClusterID)
	}
	c.logger.Info("bootstrapped", "cluster", p.ClusterID, "voters", len(p.Candidates))
	return c.identity.join(p.ClusterID)
}

// eachOther calls all candidates but this node at once.
func (c *Cluster) eachOther(p Promise, call func(address string) error) error {
	var calls errgroup.Group
	for _, candidate := range p.Candidates {
		if candidate.ID == c.Self() {
			continue
		}
		calls.Go(func() error {
			s, ok := c.gossip.sighting(candidate.ID)
			if !ok {
				return errdef.New(errdef.Unavailable, "node %s has not been heard of", candidate.ID)
			}
			return call(s.Peer)
		})
	}
	return calls.Wait()
}

// review asks the proposer whether the cluster that this node is promised to is still to come. The proposer's word is
// enough: it withdraws durably before it says so.
func (c *Cluster) review(ctx context.Context, p Promise) error {
	c.await(fmt.Sprintf("promised to cluster %s, which node %s is to bootstrap; should the disk of that node be lost, "+
		"empty the data directory here", p.ClusterID, p.Proposer))
	s, ok := c.gossip.sighting(p.Proposer)
	if !ok || s.State != StateAlive {
		return nil
	}
	state, err := c.peers.State(ctx, s.Peer)
	if err != nil || state.ID != p.Proposer || state.ClusterID == p.ClusterID {
		return err
	}
	return c.identity.withdraw(p.ClusterID)
}

// Promise reserves this node for the cluster of p, durably: until it is released it is empty to nobody else. It is
// refused with reason CLUSTER_MISMATCH when the node belongs or is promised to another cluster, NOT_READY when the
// node knows a reason why no cluster should be bootstrapped, and CONFIG_INVALID when the nodes expect different
// numbers.
func (c *Cluster) Promise(_ context.Context, p Promise) error {
	if err := c.checkPromise(p); err != nil {
		return err
	}
	if c.identity.current().told() == "" { // else pledge decides
		if obstacle := c.obstacleTo(p); obstacle != "" {
			return errdef.New(errdef.NotReady, "node %s does not promise itself: %s", c.Self(), obstacle)
		}
	}
	if err := c.identity.pledge(p); err != nil {
		return err
	}
	c.gossip.poke() // the loop announces it; the proposer need not wait for that
	return nil
}

// obstacleTo is obstacle for a cluster whose proposer, and perhaps others, have promised themselves to it already.
func (c *Cluster) obstacleTo(p Promise) string {
	if !c.gossip.complete.Load() {
		return "not every address in its cluster.join has answered"
	}
	for _, s := range c.gossip.seen() {
		if s.member() && s.Cluster != p.ClusterID {
			return "it has seen cluster " + s.Cluster
		}
	}
	return ""
}

func (c *Cluster) checkPromise(p Promise) error {
	has := func(id catalog.NodeID) bool {
		return slices.ContainsFunc(p.Candidates, func(candidate Candidate) bool { return candidate.ID == id })
	}
	switch {
	case p.ClusterID == "" || len(p.ClusterID) > maxID:
		return errdef.New(errdef.CommandInvalid, "promise to cluster %.100q", p.ClusterID)
	case !has(c.Self()) || !has(p.Proposer):
		return errdef.New(errdef.CommandInvalid, "promise without node %s or its proposer %s among the candidates",
			c.Self(), p.Proposer)
	case len(p.Candidates) != c.config.Expect:
		return errdef.New(errdef.ConfigInvalid, "node %s proposes a cluster of %d, this node expects %d",
			p.Proposer, len(p.Candidates), c.config.Expect).WithRemedy("set the same cluster.expect on all nodes")
	}
	return nil
}

// Release gives up a promise whose proposer has withdrawn it. It does nothing when the promise is not held any more,
// and fails with reason CLUSTER_MISMATCH when this node is a member of that cluster already.
func (c *Cluster) Release(_ context.Context, p Promise) error {
	if now := c.identity.current(); now.ClusterID == p.ClusterID {
		return errdef.New(errdef.ClusterMismatch, "node %s is a member of cluster %s", now.ID, p.ClusterID)
	}
	if err := c.identity.withdraw(p.ClusterID); err != nil {
		return err
	}
	c.gossip.poke()
	return nil
}
