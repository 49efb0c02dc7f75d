package budget

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		header string
		want   time.Duration
		told   bool
	}{
		{"", 0, false}, {"soon", 0, false}, {"-1", 0, false},
		{"0", 0, true}, {"7", 7 * time.Second, true}, {"600", 10 * time.Minute, true},
		{"9223372036854775807", LongestPause, true}, {"99999999999999999999", 0, false},
		{now.Add(90 * time.Second).Format(http.TimeFormat), 90 * time.Second, true},
		{now.Add(-time.Hour).Format(http.TimeFormat), 0, true},
		{now.Add(1000 * time.Hour).Format(http.TimeFormat), LongestPause, true},
	} {
		got, told := retryAfter(c.header, now)
		if got != c.want || told != c.told {
			t.Errorf("%q means %s (%v), want %s (%v)", c.header, got, told, c.want, c.told)
		}
	}
}

// TestTransportHeeds answers one request after the other and looks for how long all nodes then leave the upstream alone.
func TestTransportHeeds(t *testing.T) {
	for name, c := range map[string]struct {
		status      int
		retryAfter  string
		least, most time.Duration
	}{
		"answered":              {200, "", 0, 0},
		"absent":                {404, "9", 0, 0},
		"throttled for long":    {429, "120", 119 * time.Second, 120 * time.Second},
		"throttled":             {429, "", 500 * time.Millisecond, 1500 * time.Millisecond},
		"unavailable for a bit": {503, "30", 29 * time.Second, 30 * time.Second},
		"unavailable":           {503, "", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", c.retryAfter)
				w.WriteHeader(c.status)
			}))
			defer server.Close()
			pauses := &shared{}
			client := http.Client{Transport: &Transport{Base: http.DefaultTransport, Budget: newBudget(Limits{Concurrency: 1}, 1, pauses)}}
			resp, err := client.Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
			}
			left := max(time.Until(pauses.until), 0)
			if left < c.least || left > c.most {
				t.Errorf("is left alone for %s, want %s to %s", left, c.least, c.most)
			}
		})
	}
}

// TestBodyHoldsTheSlot: a body that is being read is a request in flight.
func TestBodyHoldsTheSlot(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(strings.Repeat("x", 1<<20)))
	}))
	defer server.Close()
	b := newBudget(Limits{Concurrency: 1}, 1, &shared{})
	client := http.Client{Transport: &Transport{Base: http.DefaultTransport, Budget: b}}
	resp, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Acquire(within(t, 20*time.Millisecond), false); errdef.ReasonOf(err) != errdef.Deadline {
		t.Errorf("beside a body: %v", err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.Acquire(within(t, 5*time.Second), false); err != nil {
		t.Errorf("after the body: %v", err)
	}
}

func TestUnreachableUpstreamsOpenTheBreaker(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	client := http.Client{Transport: &Transport{Base: http.DefaultTransport, Budget: newBudget(Limits{Concurrency: 1}, 1, &shared{})}}
	var err error
	for range breakerFailures + 1 {
		var resp *http.Response
		if resp, err = client.Get(server.URL); err == nil {
			_ = resp.Body.Close()
			t.Fatal("a closed server answered")
		}
	}
	if errdef.ReasonOf(err) != errdef.UpstreamUnavailable {
		t.Errorf("the last error is %v", err)
	}
}
