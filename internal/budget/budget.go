// Package budget keeps a whole cluster inside what one upstream registry bears: requests in flight, requests per second, and
// the pauses that the upstream demands. Each node has a Budget per upstream, with its share of the limits; pauses are
// shared, through Pauses.
//
// It decides when a request may go out, and tells at once those that cannot go out in time. What is asked, and what the
// answer means, is not known here. Package fill puts its Transport below the HTTP client of an upstream.
package budget

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ocistern/ocistern/internal/errdef"
)

// Limits are those of one upstream.
type Limits struct {
	// Concurrency bounds the requests in flight; their bodies count until they are closed. At least 1.
	Concurrency int
	// PerSecond bounds the rate of requests, 0 for no bound. Burst is how many may go out at once after a quiet time; at least
	// 1 where there is a rate.
	PerSecond float64
	Burst     int
}

// Share returns the part of one of several nodes. Owners of keys are spread evenly over the nodes, and so are their requests:
// equal parts need no talk between the nodes. Each node has at least one request in flight and a burst of one.
func (l Limits) Share(nodes int) Limits {
	nodes = max(nodes, 1)
	return Limits{
		Concurrency: max(l.Concurrency/nodes, 1), PerSecond: l.PerSecond / float64(nodes), Burst: max(l.Burst/nodes, 1),
	}
}

// Pauses is what all nodes know of an upstream that wants to be left alone. Its methods are called from many goroutines.
type Pauses interface {
	// Until returns when the last known pause ends or has ended, zero for none.
	Until(upstream string) time.Time
	// Tell makes a pause known to all nodes, sooner or later. It does not block.
	Tell(upstream string, until time.Time)
}

// Config is what a Budget needs; all of it.
type Config struct {
	Upstream string
	Limits   Limits // of the whole cluster
	// Nodes returns how many nodes share the limits.
	Nodes  func() int
	Pauses Pauses
}

// Budget is one node's part of what an upstream bears. It is safe for concurrent use.
type Budget struct {
	Config
	slots   *slots
	bulk    *slots // for content, so that it does not keep out what is small and urgent
	breaker *breaker
	rate    *rate.Limiter // nil for no bound

	// mutex guards until.
	mutex sync.Mutex
	until time.Time // of the last pause that this node was told
}

// New returns a Budget.
func New(config Config) *Budget {
	b := &Budget{Config: config, slots: newSlots(), bulk: newSlots(), breaker: &breaker{}}
	if config.Limits.PerSecond > 0 {
		part := config.Limits.Share(config.Nodes())
		b.rate = rate.NewLimiter(rate.Limit(part.PerSecond), part.Burst)
	}
	b.share()
	return b
}

// share takes this node's part, which changes with the members.
func (b *Budget) share() {
	part := b.Limits.Share(b.Nodes())
	b.slots.resize(part.Concurrency)
	b.bulk.resize(max(part.Concurrency*3/4, 1))
	if b.rate != nil {
		b.rate.SetLimit(rate.Limit(part.PerSecond))
		b.rate.SetBurst(part.Burst)
	}
}

// Admit fails when a request of ctx cannot go out before its deadline, as far as is known now: with UPSTREAM_THROTTLED during
// a pause, with UPSTREAM_UNAVAILABLE while the breaker is open. Callers ask before they wait for others that ask.
func (b *Budget) Admit(ctx context.Context) error {
	if err := b.breaker.closed(b.Upstream); err != nil {
		return err
	}
	until := b.paused()
	if deadline, bounded := ctx.Deadline(); bounded && until.After(deadline) {
		return b.throttled(until)
	}
	return nil
}

// Acquire waits until a request may go out: after pauses, in the order of the deadlines. The ticket must be given back. Bulk
// is for content, whose bodies may take long: it gets three quarters of the requests in flight. It fails as Admit does, with
// UPSTREAM_THROTTLED at once when the turn of ctx would come after its deadline, and with DEADLINE or CANCELED when ctx ends.
func (b *Budget) Acquire(ctx context.Context, bulk bool) (*Ticket, error) {
	b.share()
	if !bulk {
		return b.acquire(ctx)
	}
	if err := b.bulk.take(ctx, b.Upstream); err != nil {
		return nil, err
	}
	ticket, err := b.acquire(ctx)
	if err != nil {
		b.bulk.give(0)
		return nil, err
	}
	ticket.bulk = true
	return ticket, nil
}

func (b *Budget) acquire(ctx context.Context) (*Ticket, error) {
	for {
		if err := b.outlast(ctx); err != nil {
			return nil, err
		}
		if err := b.slots.take(ctx, b.Upstream); err != nil {
			return nil, err
		}
		err := b.token(ctx)
		if err == nil && b.paused().After(time.Now()) { // it began while this one waited
			b.slots.give(0)
			continue
		}
		probe := false
		if err == nil {
			probe, err = b.breaker.enter(b.Upstream)
		}
		if err != nil {
			b.slots.give(0)
			return nil, err
		}
		return &Ticket{budget: b, since: time.Now(), probe: probe}, nil
	}
}

// outlast waits for the end of a pause.
func (b *Budget) outlast(ctx context.Context) error {
	for {
		if err := b.Admit(ctx); err != nil {
			return err
		}
		wait := time.Until(b.paused())
		if wait <= 0 {
			return nil
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// token waits for the rate, unless that would take too long.
func (b *Budget) token(ctx context.Context) error {
	if b.rate == nil {
		return nil
	}
	reserved := b.rate.Reserve()
	wait := reserved.Delay()
	if deadline, bounded := ctx.Deadline(); bounded && time.Now().Add(wait).After(deadline) {
		reserved.Cancel()
		return b.busy(wait)
	}
	if err := sleep(ctx, wait); err != nil {
		reserved.Cancel()
		return err
	}
	return nil
}

// paused returns until when the upstream is to be left alone, as this node or the others were told.
func (b *Budget) paused() time.Time {
	b.mutex.Lock()
	until := b.until
	b.mutex.Unlock()
	if known := b.Pauses.Until(b.Upstream); known.After(until) {
		return known
	}
	return until
}

// Pause leaves the upstream alone until some time, on this node at once, on all nodes as soon as they know.
func (b *Budget) Pause(until time.Time) {
	b.mutex.Lock()
	longer := until.After(b.until.Add(worthTelling))
	if until.After(b.until) {
		b.until = until
	}
	b.mutex.Unlock()
	if longer {
		b.Pauses.Tell(b.Upstream, until)
	}
}

// worthTelling is by how much a pause must be longer than the last one to be told to the others.
const worthTelling = 500 * time.Millisecond

func (b *Budget) throttled(until time.Time) error {
	return errdef.New(errdef.UpstreamThrottled, "upstream %s wants to be left alone until %s",
		b.Upstream, until.UTC().Format(time.RFC3339)).WithRemedy("ask again then; stale answers are given where the policy allows them")
}

func (b *Budget) busy(wait time.Duration) error {
	return errdef.New(errdef.UpstreamThrottled, "upstream %s may not be asked for another %s, by the rate that is configured",
		b.Upstream, wait.Round(time.Millisecond)).WithRemedy("allow more time, or raise requests-per-second of the upstream")
}

func sleep(ctx context.Context, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return errdef.Wrap(errdef.ReasonOf(ctx.Err()), ctx.Err(), "waiting for an upstream's budget")
	}
}
