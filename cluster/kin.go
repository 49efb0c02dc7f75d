package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// lineage is what a node tells of its cluster whenever it exchanges its view with another one, also with a stranger. Keys are
// only ever added.
type lineage struct {
	Cluster  string         `json:"cluster"`
	Node     catalog.NodeID `json:"node"`
	Formers  []string       `json:"formers"`            // the clusters that were recovered as Cluster
	Disputes bool           `json:"disputes,omitempty"` // Cluster was recovered as another one by mistake
}

func (g *gossip) lineage() lineage {
	now := g.identity.current()
	if now.ClusterID == "" {
		return lineage{}
	}
	return lineage{Cluster: now.ClusterID, Node: now.ID, Formers: now.formers(), Disputes: len(now.Forks) > 0}
}

// encode returns nothing for a cluster that was never recovered.
func (l lineage) encode(logger *slog.Logger) []byte {
	if len(l.Formers) == 0 && !l.Disputes {
		return nil
	}
	encoded, err := json.Marshal(l)
	if err != nil {
		logger.Error("this node cannot tell what its cluster was", "error", err)
	}
	return encoded
}

// kinMemory is for how many rounds of Config.Join, in which strangers meet again, a cluster is shown of which nothing is heard.
const kinMemory = 3

// kin is another cluster that has a past in common with this node's.
type kin struct {
	lineage
	fork bool // it is what this node's cluster was recovered as; else what was recovered as this node's
	seen time.Time
}

// recognize looks whether a stranger's cluster is this node's, recovered, or what this node's was before.
func (g *gossip) recognize(told lineage) {
	own := g.identity.current()
	ours := own.told()
	if ours == "" || told.Cluster == "" || told.Cluster == ours {
		return
	}
	fork, former := slices.Contains(told.Formers, ours), slices.Contains(own.formers(), told.Cluster)
	if !fork && !former {
		return
	}
	g.mutex.Lock()
	_, known := g.kin[told.Cluster]
	g.kin[told.Cluster] = kin{lineage: told, fork: fork, seen: time.Now()}
	g.mutex.Unlock()
	if !known {
		g.poke()
	}
}

// present tells that a cluster was heard of not long ago.
func (g *gossip) present(k kin) bool { return time.Since(k.seen) < kinMemory*g.config.Timings.Rejoin }

// relatives returns the kin that are so, sorted.
func (g *gossip) relatives(so func(kin) bool) []kin {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	var found []kin
	for _, k := range g.kin {
		if so(k) {
			found = append(found, k)
		}
	}
	slices.SortFunc(found, func(a, b kin) int { return cmp.Compare(a.Cluster, b.Cluster) })
	return found
}

// forks returns what this node's cluster was recovered as without it, except by mistake.
func (g *gossip) forks() []kin {
	mistaken := g.identity.current().Forks
	return g.relatives(func(k kin) bool { return k.fork && !slices.Contains(mistaken, k.Cluster) })
}

// disputeForks notes, durably, that its own cluster still serves beside one that it was recovered as: then the recovery was a
// mistake, and it is the other one that has to go. Each member notes it as soon as it sees the other one: of three voters, two
// serve beside the third's fork, and none of them could prove it while the other one restarts.
func (c *Cluster) disputeForks() {
	forks := c.gossip.forks()
	if len(forks) == 0 || c.ClusterID() == "" {
		return
	}
	if err := c.bounded(c.serves); err != nil {
		c.logger.Debug("this node's cluster was recovered without it, and does not serve", "error", err)
		return
	}
	for _, fork := range forks {
		err := c.identity.change(func(r *record) { r.Forks = append(slices.Clone(r.Forks), fork.Cluster) })
		c.logger.Error("this node's cluster serves, and was recovered as another one by mistake", "cluster", c.ClusterID(),
			"other", fork.Cluster, "node", fork.Node, "error", err)
	}
}

// serves fails unless a leader of this node's cluster proves now, by a majority of the voters, that it leads.
func (c *Cluster) serves(ctx context.Context) error {
	if _, led := c.Leader(); led && c.progress.ready.Load() {
		_, err := c.ReadIndex(ctx)
		return err
	}
	ctx, proved := context.WithCancel(ctx)
	defer proved()
	var asked errgroup.Group
	var led atomic.Bool
	for _, s := range c.gossip.seen() {
		if s.State == StateAlive && s.member() && s.Cluster == c.ClusterID() {
			asked.Go(func() error {
				_, err := c.peers.ReadIndex(ctx, s.Peer, Witness{})
				if err == nil {
					led.Store(true)
					proved()
				}
				return err
			})
		}
	}
	if err := asked.Wait(); !led.Load() {
		return errdef.Wrap(errdef.NoQuorum, err, "no member of cluster %s leads", c.ClusterID())
	}
	return nil
}

// noteFormers copies the former clusters from the catalog to node.json, where gossip finds them before the log is applied.
func (c *Cluster) noteFormers() {
	known := c.catalog.Snapshot().Formers()
	if len(known) == 0 || c.ClusterID() == "" {
		return
	}
	if err := c.identity.change(func(r *record) { *r = r.withFormers(known...) }); err != nil {
		c.logger.Error("what this cluster was before is not noted", "error", err)
	}
}

// tellFormers puts the former clusters that only this node, the leader, knows into the catalog: all members are to keep the
// old nodes out.
func (c *Cluster) tellFormers(ctx context.Context) error {
	now, snapshot := c.identity.current(), c.catalog.Snapshot()
	if now.Formerly == "" || snapshot.FeatureLevel() < catalog.LevelRequests || slices.Contains(snapshot.Formers(), now.Formerly) {
		return nil
	}
	command, err := fsm.Encode(catalog.NoteFormers{ClusterIDs: now.formers()})
	if err != nil {
		return err
	}
	return c.propose(ctx, command)
}
