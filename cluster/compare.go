package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Hash is the running hash over all commands up to an index.
type Hash = [sha256.Size]byte

// Comparison is how this node's hash at an index compares with that of the voters, this node among them if it is one.
type Comparison struct {
	Index catalog.LogIndex
	// Voters are all, Told those that knew their hash at Index, Equal those whose hash is this node's.
	Voters, Told, Equal int
	// Disputed says that voters differ, and that no majority of them agrees on who is right. Such a node is not ready.
	Disputed bool
}

// Compared returns the last comparison; false before the first one.
func (c *Cluster) Compared() (Comparison, bool) {
	if last := c.progress.compared.Load(); last != nil {
		return *last, true
	}
	return Comparison{}, false
}

// HashAt tells other nodes the running hash of this one at an index, once it has come there. It fails with
// CLUSTER_MISMATCH when another node is meant, with NOT_FOUND for an index that is too long ago, and with DEADLINE or
// CANCELED when ctx ends first.
func (c *Cluster) HashAt(ctx context.Context, node catalog.NodeID, index catalog.LogIndex) (Hash, error) {
	if node != c.Self() {
		return Hash{}, errdef.New(errdef.ClusterMismatch, "this is node %s, not %s", c.Self(), node)
	}
	if _, err := c.catalog.Wait(ctx, index); err != nil {
		return Hash{}, err
	}
	hash, known := c.machine.HashAt(index)
	if !known {
		return Hash{}, errdef.New(errdef.NotFound, "node %s does not know its hash at index %d any more", node, index)
	}
	return hash, nil
}

// watchHashes compares now and then, until the node shuts down.
func (c *Cluster) watchHashes() {
	ticker := time.NewTicker(c.config.Timings.Compare)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-c.lifetime.Done():
			return
		}
		if c.progress.ready.Load() && c.identity.retired() == nil {
			c.compareHashes()
		}
	}
}

// compareHashes asks all voters for their hash at the index where this node is, and ends this node when a majority of them
// agrees on another one than its own.
func (c *Cluster) compareHashes() {
	here := c.catalog.Snapshot()
	told := c.hashesAt(here.Index())
	if c.lifetime.Err() != nil {
		return
	}
	result, diverged := judge(here.CommandHash(), told)
	result.Index = here.Index()
	if last, known := c.Compared(); known && last.Disputed && result.Equal <= result.Voters/2 {
		result.Disputed = true // until a majority says otherwise: who differed may just be silent now
	}
	c.progress.compared.Store(&result)
	switch {
	case diverged:
		c.diverge(result)
	case result.Disputed:
		c.logger.Error("the voters' commands differ, and no majority of them agrees", "index", result.Index,
			"voters", result.Voters, "told", result.Told, "equal", result.Equal)
	case result.Equal < result.Told:
		c.logger.Error("the commands of a voter differ from those of the majority", "index", result.Index,
			"voters", result.Voters, "told", result.Told, "equal", result.Equal)
	}
}

// hashesAt returns what each voter has at an index, nil for one that cannot tell.
func (c *Cluster) hashesAt(index catalog.LogIndex) []*Hash {
	ctx, cancel := c.callContext()
	defer cancel()
	var voters []catalog.NodeID
	for _, server := range c.servers() {
		if server.Suffrage == raft.Voter {
			voters = append(voters, catalog.NodeID(server.ID))
		}
	}
	told := make([]*Hash, len(voters))
	var calls errgroup.Group
	for i, id := range voters {
		calls.Go(func() error {
			hash, err := c.hashOf(ctx, id, index)
			if err != nil {
				c.logger.Debug("a voter does not tell its hash", "node", id, "index", index, "error", err)
				return nil
			}
			told[i] = &hash
			return nil
		})
	}
	_ = calls.Wait() // none fails
	return told
}

func (c *Cluster) hashOf(ctx context.Context, id catalog.NodeID, index catalog.LogIndex) (Hash, error) {
	if id == c.Self() {
		return c.HashAt(ctx, id, index)
	}
	s, ok := c.gossip.sighting(id)
	if !ok {
		return Hash{}, errdef.New(errdef.Unavailable, "node %s has not been heard of", id)
	}
	return c.peers.HashAt(ctx, s.Peer, id, index)
}

// judge compares a node's own hash with those of all voters, nil for those that are not known. It has diverged when more
// than half of all voters agree on another one.
func judge(own Hash, voters []*Hash) (result Comparison, diverged bool) {
	result.Voters = len(voters)
	count, most := map[Hash]int{}, 0
	for _, hash := range voters {
		if hash != nil {
			result.Told++
			count[*hash]++
			most = max(most, count[*hash])
		}
	}
	result.Equal = count[own]
	agreed := most > result.Voters/2
	differ := len(count) > 1 || result.Equal < result.Told
	result.Disputed = differ && !agreed
	return result, agreed && result.Equal < most
}

// diverge ends this node for good: its id is retired on disk before the process is told to exit.
func (c *Cluster) diverge(result Comparison) {
	failure := errdef.New(errdef.Diverged, "node %s holds other commands than the majority: at index %d %d of %d voters "+
		"agree with it", c.Self(), result.Index, result.Equal, result.Voters)
	if err := c.identity.retire(errdef.Diverged, failure.Message); err != nil {
		c.config.Fatal(errors.Join(failure, err))
		return
	}
	c.gossip.poke()
	c.config.Fatal(c.identity.retired())
}
