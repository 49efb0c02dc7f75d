package cluster

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// hedgeAfter is how long a round waits for the voters it has asked before it asks all.
const hedgeAfter = 5 * time.Millisecond

// confirmation is one voter's answer; err is nil when it has seen no later term.
type confirmation struct {
	voter catalog.NodeID
	err   error
}

// confirmTerm returns nil when a majority of the voters, this node among them, have seen no later term. Each answer
// belongs to a question that was asked after confirmTerm began, and nonvoters are not asked. At first it asks only as many
// as are needed, those first that answered in the last round; the others when one fails or is slow. Only the goroutine of
// proofs calls it.
func (c *Cluster) confirmTerm(ctx context.Context, term uint64) error {
	ctx, cancel := context.WithCancel(ctx) // the slow ones need not answer
	defer cancel()
	others, voters, confirmed := c.otherVoters()
	answers, asked := make(chan confirmation, len(others)), 0
	ask := func(most int) {
		for range min(most, len(others)) {
			voter := others[0]
			others, asked = others[1:], asked+1
			go func() { answers <- confirmation{voter, c.askTerm(ctx, voter, term)} }()
		}
	}
	ask(voters/2 + 1 - confirmed)
	hedge := time.NewTimer(hedgeAfter)
	defer hedge.Stop()
	var quick []catalog.NodeID
	var refusal error
	for confirmed <= voters/2 && asked > 0 {
		select {
		case answer := <-answers:
			asked--
			if answer.err == nil {
				confirmed++
				quick = append(quick, answer.voter)
			} else {
				refusal = answer.err
				ask(1)
			}
		case <-hedge.C:
			ask(len(others))
		case <-ctx.Done():
			refusal, asked = ctx.Err(), 0
		}
	}
	c.reads.quick = quick
	if confirmed > voters/2 {
		return nil
	}
	return errdef.Wrap(errdef.NotLeader, refusal, "%d of %d voters confirm that node %s leads", confirmed, voters, c.Self())
}

// otherVoters returns the voters but this node in the order to ask them, the number of all voters, and how many of them
// this node is: one or, when it was removed, none.
func (c *Cluster) otherVoters() (others []catalog.NodeID, voters, self int) {
	for _, server := range c.servers() {
		switch id := catalog.NodeID(server.ID); {
		case server.Suffrage != raft.Voter:
			continue
		case id == c.Self():
			self++
		case slices.Contains(c.reads.quick, id):
			others = slices.Insert(others, 0, id)
		default:
			others = append(others, id)
		}
		voters++
	}
	return others, voters, self
}
