package cluster

import (
	"sync"

	"github.com/hashicorp/raft"
)

// pipeline is a pipeline of raft's to one follower, with two changes.
//
// It hands on the answers without ever making it wait. raft stops to take answers at the first that is no success, while it
// may just be sending: the sender waits for the decoder, the decoder for somebody to take its answer, and the only one who
// would end both is the sender. Such a follower is sent no entry any more, while heartbeats go on, and Shutdown never returns
// (found by package simulation in v1.8.0).
//
// It keeps what is known of the follower, and tells it of commits beside the pipeline (see commits).
type pipeline struct {
	raft.AppendPipeline
	commits *commits
	send    func(*raft.AppendEntriesRequest) error // beside the pipeline
	answers chan raft.AppendFuture
	gone    chan struct{}
	close   sync.Once

	mutex sync.Mutex // guards known; never held while that of commits is taken
	known knowledge
}

func newPipeline(inner raft.AppendPipeline, commits *commits, send func(*raft.AppendEntriesRequest) error) *pipeline {
	p := &pipeline{
		AppendPipeline: inner, commits: commits, send: send,
		answers: make(chan raft.AppendFuture), gone: make(chan struct{}),
	}
	commits.opened(p)
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
			p.learn(answer)
			kept = append(kept, answer)
		case out <- next:
			kept = kept[1:]
		case <-p.gone:
			return
		}
	}
}

// learn notes an answer.
func (p *pipeline) learn(answer raft.AppendFuture) {
	if !answer.Response().Success {
		return
	}
	p.mutex.Lock()
	p.known.acknowledge(answer.Request())
	p.mutex.Unlock()
	p.commits.acknowledged(p)
}

// due tells whether the follower has an entry and does not know that it is committed.
func (p *pipeline) due(committed uint64) bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.known.due(committed)
}

// announce returns the request to deliver, which tells of a commit; nil when that is not due, or going on.
func (p *pipeline) announce(committed uint64) *raft.AppendEntriesRequest {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.known.telling || !p.known.due(committed) {
		return nil
	}
	// Told, whatever becomes of it: raft will tell again by its timer.
	p.known.telling, p.known.told = true, committed
	request := *p.known.acknowledged
	request.LeaderCommitIndex = committed
	return &request
}

// deliver sends what announce returned. An error is of no interest: raft finds it out by itself.
func (p *pipeline) deliver(request *raft.AppendEntriesRequest) {
	_ = p.send(request)
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.known.telling = false
}

// AppendEntries implements raft.AppendPipeline, as do Consumer and Close.
func (p *pipeline) AppendEntries(
	request *raft.AppendEntriesRequest, response *raft.AppendEntriesResponse,
) (raft.AppendFuture, error) {
	p.mutex.Lock()
	p.known.told = max(p.known.told, request.LeaderCommitIndex)
	p.mutex.Unlock()
	return p.AppendPipeline.AppendEntries(request, response)
}

// Consumer returns the answers.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close ends the pipeline; it may be called more than once.
func (p *pipeline) Close() error {
	p.close.Do(func() {
		close(p.gone)
		p.commits.closed(p)
	})
	return p.AppendPipeline.Close()
}
