package fill

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/errdef"
)

const testLimit = 64 << 10

// tally is an Observer that counts.
type tally struct {
	// mu guards the maps.
	mu       sync.Mutex
	requests map[string]int // by operation
	failures map[errdef.Reason]int
	avoided  int
}

func newTally() *tally {
	return &tally{requests: map[string]int{}, failures: map[errdef.Reason]int{}}
}

func (o *tally) UpstreamRequest(_, operation string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.requests[operation]++
	if err != nil {
		o.failures[errdef.ReasonOf(err)]++
	}
}

func (o *tally) Avoided(string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.avoided++
}

func testUpstream(t *testing.T, given Upstream) (*upstream, *tally) {
	return timedUpstream(t, given, Timings{})
}

func timedUpstream(t *testing.T, given Upstream, timings Timings) (*upstream, *tally) {
	t.Helper()
	observer := newTally()
	all, err := newUpstreams(given, FillerConfig{
		ManifestBytes: testLimit, Clock: time.Now, Observer: observer, Timings: timings.withDefaults(), Nodes: one,
	}, noPauses{})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range all {
		t.Cleanup(u.close)
		if u.tenant == "" {
			return u, observer
		}
	}
	t.Fatal("nobody sees the upstream")
	return nil, nil
}

// headerlessWriter drops the digest header.
type headerlessWriter struct{ http.ResponseWriter }

func (w headerlessWriter) Write(p []byte) (int, error) {
	w.Header().Del(headerDigest)
	return w.ResponseWriter.Write(p)
}

// chunked answers without Content-Length.
func chunked(r *testRegistry) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, req *http.Request) bool {
		r.serve(chunkedWriter{w}, req)
		return true
	}
}

type chunkedWriter struct{ http.ResponseWriter }

func (w chunkedWriter) Write(p []byte) (int, error) {
	w.Header().Del("Content-Length")
	w.ResponseWriter.(http.Flusher).Flush()
	return w.ResponseWriter.Write(p)
}

// failing describes an upstream that does not answer as it should; the table is shared with the tests of the Filler.
type failing struct {
	name  string
	spoil func(w http.ResponseWriter, req *http.Request) bool
	// reasons for a tag, a referrers list and a blob; "" where the answer is fine.
	tag, referrers, blob errdef.Reason
	stalls               bool // and is noticed by a time-out only
}

// timings returns time-outs that are short where the test waits for them.
func (f failing) timings() Timings {
	if !f.stalls {
		return Timings{}
	}
	return Timings{Metadata: 300 * time.Millisecond, Stall: 300 * time.Millisecond}
}

func status(code int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(code)
		return true
	}
}

func answer(contentType, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", contentType)
		writeWhole(w, []byte(body))
		return true
	}
}

// cut announces more than it sends, and closes the connection.
func cut(contentType string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"schemaVersion":2,"manifests":[]}`)
		panic(http.ErrAbortHandler)
	}
}

// stall begins an answer and never ends it.
func stall(w http.ResponseWriter, req *http.Request) bool {
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	w.Header().Set("Content-Length", "1000")
	_, _ = io.WriteString(w, `{"schemaVersion":2,`)
	w.(http.Flusher).Flush()
	<-req.Context().Done()
	return true
}

// endless sends valid JSON for ever.
func endless(w http.ResponseWriter, req *http.Request) bool {
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	if req.Method == http.MethodHead {
		w.Header().Set("Content-Length", "10")
		return true
	}
	_, err := io.WriteString(w, `{"schemaVersion":2,"manifests":[`)
	for err == nil {
		_, err = io.WriteString(w, `{},`)
	}
	return true
}

func failures() []failing {
	index := ocispec.MediaTypeImageIndex
	const (
		invalid, unavailable = errdef.UpstreamInvalid, errdef.UpstreamUnavailable
		timeout, mismatch    = errdef.UpstreamTimeout, errdef.DigestMismatch
	)
	same := func(name string, reason errdef.Reason, spoil func(http.ResponseWriter, *http.Request) bool) failing {
		return failing{name, spoil, reason, reason, reason, strings.HasPrefix(name, "stalled")}
	}
	return []failing{
		same("400", invalid, status(400)),
		same("401", errdef.UpstreamUnauthorized, status(401)),
		same("403", errdef.UpstreamDenied, status(403)),
		same("405", invalid, status(405)),
		same("408", timeout, status(408)),
		same("418", invalid, status(418)),
		same("429", errdef.UpstreamThrottled, status(429)),
		same("500", unavailable, status(500)),
		same("502", unavailable, status(502)),
		same("503", unavailable, status(503)),
		same("504", timeout, status(504)),
		same("204", invalid, status(204)),
		same("stalled headers", timeout, func(_ http.ResponseWriter, req *http.Request) bool {
			<-req.Context().Done()
			return true
		}),
		same("stalled body", timeout, stall),
		{"truncated", cut(index), unavailable, unavailable, unavailable, false},
		{"endless", endless, errdef.ManifestTooLarge, errdef.ManifestTooLarge, errdef.SizeMismatch, false},
		{"announced over the limit", answer(index, strings.Repeat(" ", testLimit+1)),
			errdef.ManifestTooLarge, errdef.ManifestTooLarge, mismatch, false},
		{"login page", answer("text/html", "<html>please log in</html>"),
			errdef.MediaTypeInvalid, errdef.MediaTypeInvalid, mismatch, false},
		{"no content type", answer("", "{}"), errdef.MediaTypeInvalid, errdef.MediaTypeInvalid, mismatch, false},
		{"not JSON", answer(index, "<html>"), errdef.ManifestInvalid, invalid, mismatch, false},
		{"an error with status 200", answer(index, `{"errors":[{"code":"TOOMANYREQUESTS"}]}`),
			errdef.ManifestInvalid, invalid, mismatch, false},
		{"an empty object", answer(index, `{}`), errdef.ManifestInvalid, invalid, mismatch, false},
		{"null", answer(index, `null`), errdef.ManifestInvalid, invalid, mismatch, false},
		{"deep JSON", answer(index, strings.Repeat("[", 20_000)), errdef.ManifestInvalid, invalid, mismatch, false},
		{"redirect to nowhere", func(w http.ResponseWriter, req *http.Request) bool {
			if req.URL.Path == "/gone" {
				return status(404)(w, req)
			}
			http.Redirect(w, req, "/gone?signature=secret", http.StatusTemporaryRedirect)
			return true
		}, invalid, invalid, invalid, false},
		{"redirect loop", func(w http.ResponseWriter, req *http.Request) bool {
			http.Redirect(w, req, req.URL.Path+"?signature=secret", http.StatusTemporaryRedirect)
			return true
		}, invalid, invalid, invalid, false},
		{"wrong digest header", func(w http.ResponseWriter, req *http.Request) bool {
			w.Header().Set(headerDigest, digest.FromString("other").String())
			return answer(index, `{"schemaVersion":2,"manifests":[]}`)(w, req)
		}, mismatch, "", mismatch, false},
		{"token service is gone", func(w http.ResponseWriter, req *http.Request) bool {
			if req.URL.Path == "/token" {
				return status(404)(w, req)
			}
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+req.Host+`/token",service="x"`)
			return status(401)(w, req)
		}, invalid, invalid, invalid, false},
	}
}

func expect(t *testing.T, what string, err error, want errdef.Reason) {
	t.Helper()
	if got := errdef.ReasonOf(err); got != want {
		t.Errorf("%s: got %q (%v), want %q", what, got, err, want)
	}
	if err != nil && strings.Contains(err.Error(), "secret") {
		t.Errorf("%s: the error shows the signature of a redirect: %v", what, err)
	}
}
