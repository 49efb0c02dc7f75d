package cluster

import (
	"slices"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
)

// Witness is a node's word that it has seen no later term than Term, given after those had come for whom it asks. A voter that
// asks for a read index gives it along, so that it need not be asked in turn. Its zero value says nothing.
type Witness struct {
	Node catalog.NodeID
	Term uint64
}

// witness returns this node's word.
func (c *Cluster) witness() Witness { return Witness{Node: c.Self(), Term: c.raft.CurrentTerm()} }

// witnessed returns what a round of proofs would, where this node, the leader, and a witness are a majority of the voters.
func (c *Cluster) witnessed(w Witness) (catalog.LogIndex, bool) {
	term := c.raft.CurrentTerm()
	if w.Term != term || c.reads.settled.Load() != term || !majority(c.servers(), c.Self(), w.Node) {
		return 0, false
	}
	commit := catalog.LogIndex(c.raft.CommitIndex())
	if !c.leadsIn(term) {
		return 0, false
	}
	index, err := c.readable(commit)
	return index, err == nil
}

// majority tells whether some nodes are a majority of the voters among servers.
func majority(servers []raft.Server, nodes ...catalog.NodeID) bool {
	voters, among := 0, 0
	for _, server := range servers {
		if server.Suffrage != raft.Voter {
			continue
		}
		voters++
		if slices.Contains(nodes, catalog.NodeID(server.ID)) {
			among++
		}
	}
	return among > voters/2
}
