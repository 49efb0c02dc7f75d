package cluster

import (
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Notices returns what this node sees that nobody but an operator can settle, each with what to do next: clusters that were
// recovered from one another and run beside each other, voters that have lost their Raft state and with it the quorum, and
// fewer voters than are configured.
func (c *Cluster) Notices() []string {
	notices := []string{}
	for _, failure := range append(c.kinNotices(), c.quorumNotice(), c.votersNotice()) {
		if failure != nil {
			notices = append(notices, describe(failure))
		}
	}
	return notices
}

func describe(failure *errdef.Error) string {
	return fmt.Sprintf("%s (next: %s)", failure.Message, failure.Remedy)
}

// tellNotices logs each notice once.
func (c *Cluster) tellNotices() {
	now := c.Notices()
	last := c.progress.noticed.Swap(&now)
	for _, notice := range now {
		if last == nil || !slices.Contains(*last, notice) {
			c.logger.Error("an operator is needed", "notice", notice)
		}
	}
}

// kinNotices tells of clusters beside this one of which there should be only one.
func (c *Cluster) kinNotices() []*errdef.Error {
	var notices []*errdef.Error
	now := c.identity.current()
	for _, k := range c.gossip.relatives(c.gossip.present) {
		var notice *errdef.Error
		switch {
		case k.fork && slices.Contains(now.Forks, k.Cluster):
			notice = errdef.New(errdef.ClusterMismatch, "node %s was recovered as cluster %s by mistake: this cluster, %s, serves",
				k.Node, k.Cluster, now.told()).
				WithRemedy("stop node %s, and start it with an empty data directory: it joins this cluster again", k.Node)
		case k.fork:
			notice = errdef.New(errdef.ClusterMismatch, "cluster %s was recovered as %s on node %s, without this node",
				now.told(), k.Cluster, k.Node).
				WithRemedy("empty the data directory %s, unless that was a mistake: then stop node %s", c.config.DataDir, k.Node)
		case k.Disputes:
			notice = errdef.New(errdef.ClusterMismatch, "cluster %s, which was recovered as this one, still serves on node %s",
				k.Cluster, k.Node).
				WithRemedy("decide which one stays; stop the nodes of the other one, and start them with empty data directories")
		default:
			notice = errdef.New(errdef.ClusterMismatch, "node %s of cluster %s, which was recovered as this one, runs",
				k.Node, k.Cluster).WithRemedy("stop it, and start it with an empty data directory")
		}
		notices = append(notices, notice)
	}
	return notices
}

// quorumNotice tells of voters that have lost their Raft state and wait under new ids to be added, where so few others are
// left that nobody can add them.
func (c *Cluster) quorumNotice() *errdef.Error {
	now := c.identity.current()
	voters := c.voters()
	if now.ClusterID == "" && now.Rejoin != nil {
		voters = now.Rejoin.Voters
	}
	lost := map[catalog.NodeID]bool{}
	note := func(was catalog.NodeID) {
		if slices.Contains(voters, was) {
			lost[was] = true
		}
	}
	if now.ClusterID == "" && now.Rejoin != nil {
		note(now.Rejoin.Was)
	}
	for _, s := range c.gossip.seen() {
		if s.State == StateAlive && s.Cluster == now.told() {
			note(s.Was)
		}
	}
	left := len(voters) - len(lost)
	if len(lost) == 0 || left > len(voters)/2 {
		return nil
	}
	notice := errdef.New(errdef.NoQuorum, "%d of %d voters of cluster %s have lost their raft state: the others are no quorum, "+
		"which could add them again", len(lost), len(voters), now.told())
	if left == 0 {
		return notice.WithRemedy("look at what lies in quarantine; or start all nodes with empty data directories and restore a " +
			"snapshot: ocistern snapshot restore FILE --yes --force")
	}
	return notice.WithRemedy("bring another voter back; or, on the one with the highest last entry: ocistern recover --data-dir DIR")
}

// votersNotice tells that the cluster survives the loss of fewer nodes than it was configured for. Nodes that leave by order
// bring that about, and recoveries; a node that joins ends it.
func (c *Cluster) votersNotice() *errdef.Error {
	voters := len(c.voters())
	if voters >= c.config.Expect || voters == 0 || !c.progress.ready.Load() {
		return nil
	}
	return errdef.New(errdef.Degraded, "the cluster has %d of %d voters, and survives the loss of %d", voters, c.config.Expect, (voters-1)/2).
		WithRemedy("start a node with an empty data directory: it joins and becomes a voter")
}

// voters returns the voters of the latest Raft configuration, sorted.
func (c *Cluster) voters() []catalog.NodeID {
	var voters []catalog.NodeID
	for _, server := range c.servers() {
		if server.Suffrage == raft.Voter {
			voters = append(voters, catalog.NodeID(server.ID))
		}
	}
	slices.Sort(voters)
	return voters
}
