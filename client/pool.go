package client

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	// asideFirst is how long an endpoint is put aside after its first failure; it doubles with each further one.
	asideFirst = 100 * time.Millisecond
	// asideMost bounds it: a node that is back is noticed within that time.
	asideMost = 5 * time.Second
)

// pool knows which endpoint to ask first. Clients start at a random one, which spreads them over the nodes, and stay
// with one that answers, which saves waiting for a node that lags behind the session. For content see owners.go.
type pool struct {
	endpoints []*endpoint
	learning  sync.WaitGroup // who asks nodes who they are

	mu      sync.Mutex // guards what follows
	current int
	health  []health // as endpoints
	closed  bool     // nobody is asked who it is any more
}

type health struct {
	failures   int // since the last success
	asideUntil time.Time

	node     string    // its id; empty until it has said so, and again after a failure
	learning time.Time // when it was last asked for its id, or has failed
	attempts int       // to learn it, since it was last known
}

func newPool(endpoints []*endpoint) *pool {
	return &pool{endpoints: endpoints, current: rand.IntN(len(endpoints)), health: make([]health, len(endpoints))}
}

// order returns the indexes of all endpoints in the order to ask them: round from the current one, those put aside last
// and among them the one whose time is up soonest first. Nobody is left out: an endpoint put aside beats no answer.
func (p *pool) order(now time.Time) []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	order := make([]int, len(p.endpoints))
	for i := range order {
		order[i] = (p.current + i) % len(order)
	}
	aside := func(i int) time.Duration { return max(0, p.health[i].asideUntil.Sub(now)) }
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(aside(a), aside(b)) })
	return order
}

// succeeded makes i the endpoint to ask first.
func (p *pool) succeeded(i int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = i
	p.health[i].recover()
}

// answered notes that i is well. It is asked first only if the one that was is not.
func (p *pool) answered(i int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.health[p.current].failures > 0 {
		p.current = i
	}
	p.health[i].recover()
}

func (h *health) recover() { h.failures, h.asideUntil = 0, time.Time{} }

// failed puts i aside and returns for how long.
func (p *pool) failed(i int, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := &p.health[i]
	aside := asideMost
	if h.failures < 6 { // asideFirst doubled six times is beyond asideMost
		aside = min(asideMost, asideFirst<<h.failures)
	}
	h.failures++
	h.node, h.learning = "", now // another one may be there when it is back
	h.asideUntil = now.Add(aside)
	return aside
}

// reconnect makes connections that wait for their next attempt make it now: with nobody left to ask, a node that has
// come back meanwhile should be noticed.
func (p *pool) reconnect() {
	for _, node := range p.endpoints {
		node.conn.ResetConnectBackoff()
	}
}

// close waits until nobody asks nodes any more who they are. Their connections must be closed.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.learning.Wait()
}
