package client

import (
	"context"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/ownership"
	"github.com/ocistern/ocistern/internal/reference"
)

// owned is the route to content: first the node that fetches it when nobody has it. Another one would have to ask that one, and a
// large blob would pass through both. A wrong guess costs that hop.
func (c *Client) owned(key ownership.Key) route {
	order := func(now time.Time) []int {
		order, strangers := c.pool.owned(now, key)
		for _, i := range strangers {
			go c.learn(i, now) // Close waits for it
		}
		return order
	}
	return route{order: order, succeeded: c.pool.answered}
}

// learn asks the node at an endpoint who it is. No caller waits for it, and a failure means to try again later.
func (c *Client) learn(i int, asked time.Time) {
	defer c.pool.learning.Done()
	ctx, cancel := context.WithTimeout(context.Background(), c.options.attemptTimeout)
	defer cancel()
	status, err := getStatus(ctx, c.pool.endpoints[i].api, nil)
	if err != nil {
		c.options.logger.Debug("not known which node it is", "endpoint", c.pool.endpoints[i].address, "error", err)
		return
	}
	c.pool.learned(i, status, asked)
}

// learnPause is the pause between two attempts to learn which node is at an endpoint. It doubles with each attempt that has
// taught nothing and each failure of the endpoint, to five minutes: a node may say who it is, and hang when it is asked for
// content.
const learnPause = asideMost

func (h *health) learnPause() time.Duration { return learnPause << min(h.failures+h.attempts, 6) }

// owned returns the order to ask for content: the owner, the next in rank, and so on, and behind them the endpoints that are put
// aside or whose node is not known, in the order of all calls. strangers are the endpoints whose nodes the caller must ask now who
// they are, by learn.
func (p *pool) owned(now time.Time, key ownership.Key) (order, strangers []int) {
	order = p.order(now)
	if len(order) == 1 {
		return order, nil
	}
	at, strangers := p.known(now, order)
	nodes := make([]string, 0, len(at))
	for node := range at {
		nodes = append(nodes, node)
	}
	ranked := make([]int, 0, len(order))
	for _, node := range ownership.Rank(key, nodes) {
		ranked = append(ranked, at[node])
	}
	for _, i := range order {
		if !slices.Contains(ranked, i) {
			ranked = append(ranked, i)
		}
	}
	return ranked, strangers
}

// known returns where the nodes are that are known and not put aside, and notes that the strangers are asked now.
func (p *pool) known(now time.Time, order []int) (at map[string]int, strangers []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at = make(map[string]int, len(order))
	for _, i := range order {
		h := &p.health[i]
		_, twice := at[h.node]
		switch {
		case h.node != "" && !twice && !now.Before(h.asideUntil):
			at[h.node] = i
		case h.node == "" && !p.closed && now.Sub(h.learning) >= h.learnPause():
			h.learning = now
			h.attempts++
			p.learning.Add(1)
			strangers = append(strangers, i)
		}
	}
	return at, strangers
}

// learned notes which node is at i, as it has said when it was asked at a time; zero for a caller's own question, which counts
// only while i is well. A node that knows no leader fetches nothing, and may be far behind.
func (p *pool) learned(i int, status *Status, asked time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := &p.health[i]
	if status.Leader == "" || h.failures > 0 && !asked.Equal(h.learning) { // it has failed since
		return
	}
	h.node, h.attempts = status.Node.ID, 0
}

func (r *Repository) manifestRoute(dgst digest.Digest) route {
	return r.client.owned(ownership.Manifest(r.client.tenant(), r.name, dgst))
}

func (r *Repository) blobRoute(dgst digest.Digest) route {
	return r.client.owned(ownership.Blob(r.client.tenant(), r.name, dgst))
}

// tenant is the one that nodes take this client's calls for.
func (c *Client) tenant() reference.Tenant {
	if c.options.tenant == "" {
		return reference.DefaultTenant
	}
	return c.options.tenant
}
