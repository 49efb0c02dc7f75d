package cluster

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ocistern/ocistern/internal/errdef"
)

// meet makes a node that belongs to a cluster look at the nodes it is to join before it starts for good: a data
// directory of another cluster is an error of the operator. A node with an empty disk need not wait.
func (c *Cluster) meet() error {
	if c.ClusterID() == "" {
		return nil
	}
	c.gossip.join()
	c.disputeForks()
	return c.gossip.mismatch()
}

// rejoin keeps trying Config.Join, so that nodes that start in any order find each other, and so that a partition heals
// that lasted longer than gossip remembers the dead. It returns when the node shuts down.
func (g *gossip) rejoin() {
	for {
		g.join()
		pause := g.config.Timings.Rejoin
		if g.identity.current().ClusterID == "" || !g.complete.Load() {
			pause = 4 * g.config.Timings.Tick
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-g.lifetime.Done():
			timer.Stop()
			return
		}
	}
}

// join tries all addresses of Config.Join once, with names resolved anew, and the dead members where they were last.
func (g *gossip) join() {
	known := map[string]bool{g.address: true}
	var dead []string
	own := g.identity.current().ClusterID
	for _, s := range g.seen() {
		switch {
		case s.State == StateAlive:
			known[s.Gossip] = true
		case own != "" && s.Cluster == own:
			dead = append(dead, s.Gossip)
		}
	}
	var tries errgroup.Group
	for _, address := range g.config.Join {
		tries.Go(func() error { return g.joinName(address, known) })
	}
	for _, address := range dead {
		tries.Go(func() error {
			if _, err := g.list.Join([]string{address}); err != nil {
				g.logger.Debug("a dead member does not answer yet", "address", address, "error", err)
			}
			return nil
		})
	}
	missing := tries.Wait()
	if missing != nil {
		g.logger.Debug("not every address to join has answered", "error", missing)
	}
	g.complete.Store(missing == nil)
}

// joinName joins all nodes behind a name and fails unless all answered.
func (g *gossip) joinName(address string, known map[string]bool) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(g.lifetime, g.config.Timings.Call)
	defer cancel()
	found, err := g.config.Environment.Network.LookupIPAddr(ctx, host)
	if err != nil {
		return err
	}
	for _, ip := range found {
		target := net.JoinHostPort(ip.String(), port)
		if known[target] {
			continue
		}
		if _, tried := g.list.Join([]string{target}); tried != nil {
			err = errors.Join(err, tried)
			continue
		}
		g.judge(address, target)
	}
	return err
}

// judge looks who answered at an address of Config.Join. A stranger there means that this node is astray, unless a
// member of its own cluster is in sight. A stranger that comes by itself means nothing: it is the one who is wrong.
func (g *gossip) judge(address, target string) {
	now := g.identity.current()
	own := now.ClusterID
	g.mutex.Lock()
	defer g.mutex.Unlock()
	other, stranger := g.strangers[target]
	if !stranger || own == "" || slices.Contains(now.formers(), other) { // that one has to give way
		return
	}
	g.astray = errdef.New(errdef.ClusterMismatch, "%s belongs to cluster %s, the node at %s to cluster %s",
		g.config.DataDir, own, address, other).
		WithRemedy("correct data-dir or cluster.join, or empty the data directory to let the node join as a new one")
}

// mismatch returns an error of reason CLUSTER_MISMATCH when Config.Join leads to another cluster than this node's, or when
// this node's was recovered without it, and not by mistake. It is asked only by a node that is not ready: one that is has a
// leader, and who recovered its cluster was wrong.
func (g *gossip) mismatch() error {
	own := g.identity.current().ClusterID
	if forks := g.forks(); len(forks) > 0 && own != "" { // a node that waits to rejoin cannot tell, and has nothing to lose
		return errdef.New(errdef.ClusterMismatch, "cluster %s was recovered as %s on node %s, without this node",
			own, forks[0].Cluster, forks[0].Node).
			WithRemedy("empty the data directory %s: the node then joins the recovered cluster under a new id", g.config.DataDir)
	}
	g.mutex.Lock()
	defer g.mutex.Unlock()
	for _, s := range g.sightings {
		if s.member() && s.Cluster == own {
			return nil
		}
	}
	return g.astray
}
