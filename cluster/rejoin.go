package cluster

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ocistern/ocistern/internal/errdef"
)

// meet makes a node that belongs to a cluster look at the nodes it is to join before it starts for good: a data directory
// of another cluster is an error of the operator. A node with an empty disk need not wait.
func (g *gossip) meet() error {
	if g.identity.current().ClusterID == "" {
		return nil
	}
	g.join()
	return g.mismatch()
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
	known := map[string]bool{g.list.LocalNode().Address(): true}
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
	var missed atomic.Bool
	for _, address := range g.config.Join {
		tries.Go(func() error {
			if !g.joinName(address, known) {
				missed.Store(true)
			}
			return nil
		})
	}
	for _, address := range dead {
		tries.Go(func() error {
			_, err := g.list.Join([]string{address})
			return err
		})
	}
	if err := tries.Wait(); err != nil {
		g.logger.Debug("a dead member does not answer yet", "error", err)
	}
	g.complete.Store(!missed.Load())
}

// joinName tells whether all nodes behind a name answered.
func (g *gossip) joinName(address string, known map[string]bool) bool {
	all := true
	targets := g.resolve(address)
	for _, target := range targets {
		if known[target] {
			continue
		}
		if _, err := g.list.Join([]string{target}); err != nil {
			g.logger.Debug("a node to join does not answer", "address", address, "target", target, "error", err)
			all = false
		}
	}
	return all && len(targets) > 0
}

func (g *gossip) resolve(address string) []string {
	ctx, cancel := context.WithTimeout(g.lifetime, g.config.Timings.Call)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil // Config.complete refuses such an address
	}
	found, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		g.logger.Debug("a name to join does not resolve", "address", address, "error", err)
		return nil
	}
	targets := make([]string, len(found))
	for i, ip := range found {
		targets[i] = net.JoinHostPort(ip.String(), port)
	}
	return targets
}

// mismatch returns an error of reason CLUSTER_MISMATCH when a node of Config.Join belongs to another cluster and no
// member of the own one is in sight. A stranger that comes by itself is no reason: it is the one who is wrong.
func (g *gossip) mismatch() error {
	own := g.identity.current().ClusterID
	if own == "" {
		return nil
	}
	for _, s := range g.seen() {
		if s.member() && s.Cluster == own {
			return nil
		}
	}
	for _, address := range g.config.Join {
		for _, target := range g.resolve(address) {
			if cluster := g.stranger(target); cluster != "" {
				return errdef.New(errdef.ClusterMismatch, "%s belongs to cluster %s, the node at %s to cluster %s",
					g.config.DataDir, own, address, cluster).
					WithRemedy("correct data-dir or cluster.join, or empty the data directory to let the node join as a new one")
			}
		}
	}
	return nil
}

func (g *gossip) stranger(target string) string {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return g.strangers[target]
}
