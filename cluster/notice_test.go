package cluster

import (
	"testing"

	"github.com/ocistern/ocistern/internal/errdef"
)

// A cluster that nodes have left says how many voters it lacks, on every node, until others have taken their places.
func TestTooFewVotersAreNoticed(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	if got := nodes[0].cluster.Notices(); len(got) > 0 {
		t.Errorf("a whole cluster has notices: %q", got)
	}
	gone, rest := nodes[2], nodes[:2]
	rest[0].order(Operation{Kind: OperationLeave, Node: gone.config.Name})
	for _, n := range rest {
		n.waitNotice("has 2 of 3 voters, and survives the loss of 0", "next: start a node with an empty data directory")
	}
	gone.crash()
	gone.wipe()
	f.start(gone)
	for _, n := range nodes {
		f.eventually(n.config.Name+" has no notice any more", func() error {
			if got := n.cluster.Notices(); len(got) > 0 {
				return errdef.New(errdef.NotReady, "%q", got)
			}
			return nil
		})
	}
}
