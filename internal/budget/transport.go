package budget

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// Transport sends requests within a budget, and listens to what the upstream demands: after a Retry-After, and after a 429
// without one, all nodes leave it alone.
type Transport struct {
	Base   http.RoundTripper
	Budget *Budget
	// Bulk tells which requests are for content; nil for none.
	Bulk func(*http.Request) bool

	throttled atomic.Int32 // answers 429 without a Retry-After in a row
}

const (
	// LongestPause is how much of a Retry-After is honoured: the window of the largest public registry. One that demands more
	// is asked once in this time.
	LongestPause = 6 * time.Hour
	// firstPause is for a 429 that does not say for how long, doubled for each further one, at most longestGuess.
	firstPause   = time.Second
	longestGuess = time.Minute
)

// RoundTrip implements http.RoundTripper. Its errors of its own are those of Budget.Acquire.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ticket, err := t.Budget.Acquire(req.Context(), t.Bulk != nil && t.Bulk(req))
	if err != nil {
		return nil, err
	}
	resp, err := t.Base.RoundTrip(req)
	switch {
	case err != nil && req.Context().Err() != nil && !errors.Is(req.Context().Err(), context.DeadlineExceeded):
		ticket.Tell(GivenUp)
	case err != nil:
		ticket.Tell(Failed)
	case resp.StatusCode >= http.StatusInternalServerError && resp.Header.Get("Retry-After") == "":
		ticket.Tell(Failed)
	default:
		ticket.Tell(Answered)
	}
	if err != nil {
		ticket.Return()
		return nil, err
	}
	t.heed(resp)
	resp.Body = &returning{ReadCloser: resp.Body, ticket: ticket}
	return resp, nil
}

// heed pauses where the answer demands it.
func (t *Transport) heed(resp *http.Response) {
	now := time.Now()
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if wait, told := retryAfter(resp.Header.Get("Retry-After"), now); told {
			t.Budget.Pause(now.Add(wait))
			return
		}
		if resp.StatusCode == http.StatusTooManyRequests {
			guess := min(firstPause<<min(t.throttled.Add(1)-1, 10), longestGuess)
			t.Budget.Pause(now.Add(guess + rand.N(guess/4)))
		}
	default:
		t.throttled.Store(0)
	}
}

// retryAfter reads the header: seconds, or a date (RFC 9110, section 10.2.3).
func retryAfter(header string, now time.Time) (time.Duration, bool) {
	var wait time.Duration
	if seconds, err := strconv.ParseUint(header, 10, 63); err == nil {
		wait = time.Duration(min(seconds, uint64(LongestPause/time.Second))) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		wait = at.Sub(now)
	} else {
		return 0, false
	}
	return min(max(wait, 0), LongestPause), true
}

// returning gives the ticket back when the body is closed.
type returning struct {
	io.ReadCloser
	ticket *Ticket
}

// Close implements io.Closer.
func (r *returning) Close() error {
	defer r.ticket.Return()
	return r.ReadCloser.Close()
}
