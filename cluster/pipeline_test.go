package cluster

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A pipeline goes on when nobody takes the answers any more. The planted bug, raft's own pipeline, stands still: that is how
// this test knows the fault.
func TestPipelineGoesOnUnheard(t *testing.T) {
	t.Parallel()
	const appends = 8
	for _, c := range []struct {
		name string
		open func(*transport, raft.ServerAddress) (raft.AppendPipeline, error)
		goes bool
	}{
		{"wrapped", func(tr *transport, at raft.ServerAddress) (raft.AppendPipeline, error) {
			return tr.AppendEntriesPipeline("b", at)
		}, true},
		{"planted bug", func(tr *transport, at raft.ServerAddress) (raft.AppendPipeline, error) {
			return tr.NetworkTransport.AppendEntriesPipeline("b", addressed("b", at))
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sender := testTransport(t, testIdentity(t, "a", "x"))
			receiver := testTransport(t, testIdentity(t, "b", "x"))
			go refuseAll(receiver)
			opened, err := c.open(sender, receiver.LocalAddr())
			must(t, err)
			sent := make(chan error, 1)
			go func() {
				for range appends {
					if _, err := opened.AppendEntries(entry(), &raft.AppendEntriesResponse{}); err != nil {
						sent <- err
						return
					}
				}
				sent <- nil
			}()
			if c.goes {
				select {
				case err := <-sent:
					must(t, err)
				case <-time.After(patience):
					t.Fatal("the sender waits for somebody who takes the answers")
				}
				must(t, opened.Close())
				return
			}
			select {
			case err := <-sent:
				t.Fatalf("raft's own pipeline goes on (%v): cluster/pipeline.go may go", err)
			case <-time.After(time.Second):
			}
			must(t, opened.Close())
			if err := <-sent; err == nil {
				t.Fatal("closed, and yet all was sent")
			}
		})
	}
}

func refuseAll(receiver *transport) {
	for rpc := range receiver.NetworkTransport.Consumer() {
		rpc.Respond(&raft.AppendEntriesResponse{}, nil)
	}
}
