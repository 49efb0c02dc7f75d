package cluster

import (
	"sync"

	"github.com/hashicorp/raft"
)

// pipeline hands on the answers of a pipeline of raft's without ever making it wait. raft stops to take answers at the first
// that is no success, while it may just be sending: the sender waits for the decoder, the decoder for somebody to take its
// answer, and the only one who would end both is the sender. Such a follower is sent no entry any more, while heartbeats go
// on, and Shutdown never returns (found by package simulation in v1.8.0).
type pipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	closed  chan struct{}
	close   sync.Once
}

func newPipeline(inner raft.AppendPipeline) *pipeline {
	p := &pipeline{AppendPipeline: inner, answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go p.relay()
	return p
}

// relay keeps what nobody takes: at most what was in flight when raft stopped to look, since it sends one more at most.
func (p *pipeline) relay() {
	var kept []raft.AppendFuture
	for {
		var next raft.AppendFuture
		var out chan raft.AppendFuture
		if len(kept) > 0 {
			next, out = kept[0], p.answers
		}
		select {
		case answer := <-p.AppendPipeline.Consumer():
			kept = append(kept, answer)
		case out <- next:
			kept = kept[1:]
		case <-p.closed:
			return
		}
	}
}

// Consumer implements raft.AppendPipeline, as does Close.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

func (p *pipeline) Close() error {
	p.close.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}
