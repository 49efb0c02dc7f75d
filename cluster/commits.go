package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// burstPause is how long no commit must follow in a burst before followers are told of the last one: the next entry tells them.
const burstPause = time.Millisecond

// commits tells followers of a commit when no entry follows that would. raft leaves that to a timer (Timings.Commit, 20 to
// 40 ms), for which whoever writes through a follower, or reads there what was just written, would wait. DESIGN.md argues why
// it is safe.
type commits struct {
	lone  chan struct{} // holds a token while somebody may have to be told at once
	burst chan struct{} // the same, when no other commit follows

	mutex     sync.Mutex // guards what follows
	committed uint64     // the highest index that is known to be committed
	following bool       // more was on its way when committed was noted
	pipelines map[*pipeline]struct{}
	muted     bool // nobody is told: a planted bug
}

func newCommits() *commits {
	return &commits{lone: make(chan struct{}, 1), burst: make(chan struct{}, 1), pipelines: map[*pipeline]struct{}{}}
}

// note says that an index is committed; following, whether other entries are on their way.
func (c *commits) note(index uint64, following bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if index > c.committed {
		c.committed, c.following = index, following
		c.poke()
	}
}

// poke makes serve look who is to be told. The caller holds mutex.
func (c *commits) poke() {
	wake := c.lone
	if c.following {
		wake = c.burst
	}
	select {
	case wake <- struct{}{}:
	default:
	}
}

func (c *commits) opened(p *pipeline) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.pipelines[p] = struct{}{}
}

func (c *commits) closed(p *pipeline) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	delete(c.pipelines, p)
}

// acknowledged says that a follower may have to be told: it has more of the log than before, perhaps after the commit.
func (c *commits) acknowledged(p *pipeline) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if p.due(c.committed) {
		c.poke()
	}
}

// serve tells until ctx ends, each follower at its own pace.
func (c *commits) serve(ctx context.Context) {
	pause := time.NewTimer(burstPause)
	defer pause.Stop()
	for {
		select {
		case <-c.burst:
			pause.Reset(burstPause)
			continue
		case <-c.lone:
		case <-pause.C:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return
		}
		c.tell()
	}
}

// tell tells all who do not know yet and are not just being told. Nobody waits for it, also at the end: a follower that hangs
// takes its time-out.
func (c *commits) tell() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.muted {
		return
	}
	for p := range c.pipelines {
		if request := p.announce(c.committed); request != nil {
			go func() {
				p.deliver(request)
				c.acknowledged(p) // there may have been more commits meanwhile
			}()
		}
	}
}

// knowledge is what a leader knows of a follower through its pipeline.
type knowledge struct {
	// acknowledged is the last request that the follower took, as one without entries: what it has of the log.
	acknowledged *raft.AppendEntriesRequest
	told         uint64 // the highest commit index that is on its way to it
	telling      bool
}

// acknowledge notes what a follower took.
func (k *knowledge) acknowledge(request *raft.AppendEntriesRequest) {
	has := *request
	if n := len(request.Entries); n > 0 {
		has.PrevLogEntry, has.PrevLogTerm, has.Entries = request.Entries[n-1].Index, request.Entries[n-1].Term, nil
	}
	k.acknowledged = &has
}

// due tells whether a follower has an entry and does not know that it is committed.
func (k *knowledge) due(committed uint64) bool {
	return k.told < committed && k.acknowledged != nil && k.acknowledged.PrevLogEntry >= committed
}
