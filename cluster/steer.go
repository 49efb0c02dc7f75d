package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/internal/errdef"
)

// steer is the one goroutine that bootstraps, catches up and leads. It looks again whenever gossip or the leader
// changes, and with each Tick. It returns when the node shuts down.
func (c *Cluster) steer() {
	ticker := time.NewTicker(c.config.Timings.Tick)
	defer ticker.Stop()
	told := c.gossip.self()
	for {
		changed := c.leadership.next()
		c.step()
		if now := c.gossip.self(); now != told { // promised, released or admitted meanwhile
			told = now
			c.gossip.announce()
		}
		for c.lead() {
		}
		c.checkTransfers()
		select {
		case <-changed:
		case <-c.gossip.changed:
		case o := <-c.orders:
			c.execute(o)
		case <-ticker.C:
		case <-c.lifetime.Done():
			return
		}
	}
}

// step takes this node one step nearer to being ready.
func (c *Cluster) step() {
	ctx, cancel := c.callContext()
	defer cancel()
	if c.ClusterID() == "" {
		if err := c.seek(ctx); err != nil && c.lifetime.Err() == nil {
			c.await("no cluster yet: " + err.Error())
		}
	}
	c.catchUp(ctx)
	c.noteVoters()
	c.noteFormers()
	c.disputeForks()
	c.tellNotices()
}

// noteVoters keeps who the voters are where it is found when the Raft state is lost.
func (c *Cluster) noteVoters() {
	if c.ClusterID() == "" {
		return
	}
	voters := c.voters()
	if len(voters) == 0 { // the log has not come yet
		return
	}
	if err := c.identity.change(func(r *record) { r.Voters = voters }); err != nil {
		c.logger.Error("who the voters are is not noted", "error", err)
	}
}

// Shutdown stops this node: a leader hands over first, then the node leaves gossip, then Raft stops. It does not
// remove the node from the cluster. ctx bounds the wait for the hand-over; the rest takes seconds at most. Further
// calls return what the first one did.
func (c *Cluster) Shutdown(ctx context.Context) error {
	c.closing.once.Do(func() {
		c.awaitRestore(ctx)
		c.handOver(ctx)
		c.closing.end()
		c.workers.Wait() // a second announcement would overtake the goodbye
		c.gossip.leave()
		c.closing.err = c.abandon()
	})
	return c.closing.err
}

// handOver transfers the leadership to another voter. raft can hang in a transfer that is interrupted (issue 696), so
// it is waited for only as long as ctx and the election timeouts allow; this node is on its way out anyway.
func (c *Cluster) handOver(ctx context.Context) {
	others := view{self: c.Self(), servers: c.servers()}.voters() - 1
	if c.raft.State() != raft.Leader || others < 1 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 3*c.config.Timings.Election)
	defer cancel()
	if err := c.settle(ctx, c.raft.LeadershipTransfer()); err != nil {
		c.logger.Warn("leadership was not handed over; the others will elect a leader", "error", err)
	}
}

// Abandon stops this node without a word to the others, who see it crash. It may be called in the place of Shutdown, by
// tests and simulations.
func (c *Cluster) Abandon() error {
	c.closing.once.Do(func() { c.closing.err = c.abandon() })
	return c.closing.err
}

// abandon stops all that runs: the end of Shutdown and of a failed Open.
func (c *Cluster) abandon() error {
	var failures []error
	c.closing.end()
	if c.gossip != nil && c.gossip.list != nil {
		failures = append(failures, c.gossip.list.Shutdown())
	}
	if c.raft != nil {
		failures = append(failures, c.raft.Shutdown().Error()) // closes the transport
	} else if c.transport != nil {
		failures = append(failures, c.transport.Close())
	}
	c.workers.Wait()
	if c.storage != nil {
		failures = append(failures, c.storage.close())
	}
	if err := errors.Join(failures...); err != nil {
		return errdef.Wrap(errdef.Internal, err, "the node did not stop cleanly")
	}
	return nil
}
