package budget

import (
	"sync"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
)

const (
	// breakerFailures is how many requests in a row must fail before the breaker opens.
	breakerFailures = 10
	// breakerFirst is how long it stays open at first, doubled after each probe that fails, at most breakerLongest: what an
	// upstream that is back may cost in delay.
	breakerFirst   = time.Second
	breakerLongest = 15 * time.Second
)

// breaker spares callers the wait for an upstream that does not work, and the upstream the callers. While it is open, nothing
// goes out; then one request does, the probe, and decides.
type breaker struct {
	// mutex guards all below.
	mutex    sync.Mutex
	failures int // in a row
	opened   time.Time
	pause    time.Duration // 0 while it is closed
	probing  bool
}

// closed fails with UPSTREAM_UNAVAILABLE while the breaker is open.
func (b *breaker) closed(upstream string) error {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.refusal(upstream)
}

// refusal is nil when a request may go out. The caller holds mutex.
func (b *breaker) refusal(upstream string) error {
	if b.pause == 0 || !b.probing && time.Since(b.opened) >= b.pause {
		return nil
	}
	return errdef.New(errdef.UpstreamUnavailable, "upstream %s has failed %d times in a row and is not asked for %s",
		upstream, b.failures, b.pause).WithRemedy("look whether it works; it is tried again by itself")
}

// enter is closed for a request that goes out now. It tells whether that is the probe.
func (b *breaker) enter(upstream string) (probe bool, err error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if err := b.refusal(upstream); err != nil {
		return false, err
	}
	b.probing = b.pause > 0
	return b.probing, nil
}

func (b *breaker) leave(outcome Outcome, probe bool) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if probe {
		b.probing = false
	}
	switch outcome {
	case Answered:
		b.failures, b.pause = 0, 0
	case Failed:
		b.failures++
		if probe || b.pause == 0 && b.failures >= breakerFailures {
			b.pause, b.opened = min(max(2*b.pause, breakerFirst), breakerLongest), time.Now()
		}
	case GivenUp: // says nothing; after a probe, the next one is
	}
}
