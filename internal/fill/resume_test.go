package fill

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// cutWriter sends so many bytes of a body and closes the connection.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if len(p) < w.left {
		n, err := w.ResponseWriter.Write(p)
		w.left -= n
		return n, err
	}
	_, _ = w.ResponseWriter.Write(p[:w.left])
	w.ResponseWriter.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// cutAfter lets the registry cut each answer after so many bytes; it is asked for each one.
func (r *testRegistry) cutAfter(bytes func(req *http.Request) int) {
	r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
		r.serve(&cutWriter{w, bytes(req)}, req)
		return true
	})
}

func blobKey(desc ocispec.Descriptor) ContentKey {
	return ContentKey{testTenant, testRepository, ContentBlob, desc.Digest}
}

// An answer that is cut off is resumed at the byte where it was, by Range, for readers on all nodes.
func TestCutsAreResumedByRange(t *testing.T) {
	for seed := range uint64(4) {
		r := newTestRegistry(t)
		content := layer(2<<20, "layer")
		desc := r.pushBlob("org/app", "", content)
		var mu sync.Mutex // guards random and cuts
		random, cuts := rand.New(rand.NewPCG(seed, 0)), 0
		r.cutAfter(func(*http.Request) int {
			mu.Lock()
			defer mu.Unlock()
			cuts++
			return worthwhile + 1 + random.IntN(len(content)/3)
		})
		c := newTestCluster(t, r)
		var callers sync.WaitGroup
		for n := range 12 {
			callers.Go(func() {
				body, err := c.nodes[n%3].content(t.Context(), ContentBlob, desc.Digest)
				if err != nil || !bytes.Equal(body, content) {
					t.Errorf("seed %d: got %d bytes, %v", seed, len(body), err)
				}
			})
		}
		callers.Wait()
		if sent := r.sentBytes(); sent > int64(len(content)+cuts) {
			t.Errorf("seed %d: %d bytes were sent in %d answers", seed, sent, cuts)
		}
	}
}

// rangeAnswer is what an upstream answers to a Range, and what becomes of the blob.
type rangeAnswer struct {
	answer func(w http.ResponseWriter, req *http.Request, from int)
	reason errdef.Reason
}

func rangeAnswers(content []byte, elsewhere string) map[string]rangeAnswer {
	size := len(content)
	partial := func(text string, from, to int) func(http.ResponseWriter, *http.Request, int) {
		return func(w http.ResponseWriter, _ *http.Request, asked int) {
			if text != "" {
				w.Header().Set("Content-Range", fmt.Sprintf(text, asked))
			}
			w.Header().Set("Content-Length", strconv.Itoa(to-(from+asked)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(content[from+asked : to])
		}
	}
	return map[string]rangeAnswer{
		"the whole": {func(w http.ResponseWriter, _ *http.Request, _ int) { writeWhole(w, content) }, ""},
		"half of it": {func(w http.ResponseWriter, _ *http.Request, from int) {
			to := min(from+size/3, size)
			partial("bytes %d-"+fmt.Sprintf("%d/%d", to-1, size), 0, to)(w, nil, from)
		}, ""},
		"unknown total": {partial("bytes %d-"+fmt.Sprintf("%d/*", size-1), 0, size), ""},
		"a redirect": {func(w http.ResponseWriter, req *http.Request, _ int) {
			http.Redirect(w, req, elsewhere+"/blob", http.StatusTemporaryRedirect)
		}, ""},
		"another total": {partial("bytes %d-"+fmt.Sprintf("%d/%d", size-1, size+1), 0, size), errdef.UpstreamInvalid},
		"another start": {func(w http.ResponseWriter, _ *http.Request, from int) {
			partial("bytes %d-"+fmt.Sprintf("%d/%d", size-1, size), 0, size)(w, nil, from+1000)
		}, errdef.UpstreamInvalid},
		"no bounds":        {partial("", 0, size), errdef.UpstreamInvalid},
		"bounds and bytes": {partial("bytes %d-"+fmt.Sprintf("%d/%d", size-1, size), 1, size), errdef.UpstreamInvalid},
		"416": {func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		}, errdef.UpstreamInvalid},
		"429": {func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.WriteHeader(http.StatusTooManyRequests)
		}, errdef.UpstreamThrottled},
		"404": {func(w http.ResponseWriter, req *http.Request, _ int) {
			http.NotFound(w, req)
		}, errdef.NotFound},
	}
}

func TestAnswersToARange(t *testing.T) {
	content := layer(1<<20, "layer")
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(content))
	}))
	defer elsewhere.Close()
	for name, c := range rangeAnswers(content, elsewhere.URL) {
		t.Run(name, func(t *testing.T) {
			r := newTestRegistry(t)
			r.configure = func(given *Upstream) { given.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} }
			desc := r.pushBlob("org/app", "", content)
			r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
				from := 0
				if _, err := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &from); err != nil {
					r.serve(&cutWriter{w, len(content) / 3}, req)
				}
				c.answer(w, req, from)
				return true
			})
			cluster := newTestCluster(t, r)
			n := cluster.ranked(blobKey(desc).owners)[1]
			body, err := n.content(t.Context(), ContentBlob, desc.Digest)
			expect(t, "the first caller", err, c.reason)
			if err == nil && !bytes.Equal(body, content) {
				t.Errorf("got %d other bytes", len(body))
			}
			if c.reason == "" || c.reason == errdef.NotFound {
				return
			}
			for _, found := range recorded(t, cluster) {
				t.Error(found)
			}
			var asked atomic.Value
			r.setSpoil(func(_ http.ResponseWriter, req *http.Request) bool {
				asked.Store(req.Header.Get("Range"))
				return false
			})
			body, err = n.content(t.Context(), ContentBlob, desc.Digest)
			if err != nil || !bytes.Equal(body, content) {
				t.Errorf("the next caller got %d bytes, %v", len(body), err)
			}
			want := ""
			if c.reason == errdef.UpstreamThrottled { // says nothing against what has arrived
				want = fmt.Sprintf("bytes=%d-", len(content)/3-1)
			}
			if asked.Load() != want {
				t.Errorf("the next caller made the node ask for the range %q, want %q", asked.Load(), want)
			}
		})
	}
}

// When the rest is of another whole, all is dropped and fetched anew, once.
func TestAWrongWholeIsFetchedAnewOnce(t *testing.T) {
	for _, honest := range []bool{true, false} {
		r := newTestRegistry(t)
		content := layer(1<<20, "layer")
		desc := r.pushBlob("org/app", "", content)
		r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
			r.mu.Lock()
			asked := r.requests[req.URL.Path]
			r.mu.Unlock()
			switch {
			case req.Header.Get("Range") == "" && asked > 2 && honest:
				return false
			case req.Header.Get("Range") == "":
				r.serve(&cutWriter{w, len(content) / 3}, req)
			}
			http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(layer(1<<20, "another")))
			return true
		})
		c := newTestCluster(t, r)
		owner := c.ranked(blobKey(desc).owners)[0]
		late, err := owner.router.Fetch(t.Context(), blobKey(desc), int64(len(content))-1) // has had none of the wrong bytes
		if err != nil {
			t.Fatal(err)
		}
		last, err := io.ReadAll(late)
		late.Close()
		want, requests := errdef.Reason(""), 3
		if !honest {
			want, requests = errdef.DigestMismatch, 4
		}
		expect(t, fmt.Sprintf("honest %v", honest), err, want)
		if err == nil && !bytes.Equal(last, content[len(content)-1:]) {
			t.Errorf("got %q", last)
		}
		if n := r.counts()["/v2/org/app/blobs/"+desc.Digest.String()]; n != requests {
			t.Errorf("honest %v: the upstream was asked %d times, want %d", honest, n, requests)
		}
	}
}

// An upstream that brings nothing more is not asked for ever; what it has brought is kept.
func TestResumingIsBounded(t *testing.T) {
	r := newTestRegistry(t)
	content := layer(1<<20, "layer")
	desc := r.pushBlob("org/app", "", content)
	r.cutAfter(func(req *http.Request) int {
		if req.Header.Get("Range") == "" {
			return len(content) / 2
		}
		return 1
	})
	c := newTestCluster(t, r)
	owner := c.ranked(blobKey(desc).owners)[0]
	_, err := owner.content(t.Context(), ContentBlob, desc.Digest)
	expect(t, "blob", err, errdef.UpstreamUnavailable)
	if n := r.counts()["/v2/org/app/blobs/"+desc.Digest.String()]; n != 1+maxFruitless+1 {
		t.Errorf("the upstream was asked %d times", n)
	}
	r.setSpoil(nil)
	r.sentBytes()
	body, err := owner.content(t.Context(), ContentBlob, desc.Digest)
	if err != nil || !bytes.Equal(body, content) {
		t.Errorf("got %d bytes, %v", len(body), err)
	}
	if sent := r.sentBytes(); sent != int64(len(content)/2+1) {
		t.Errorf("%d bytes were asked for again", sent)
	}
}

// What a node has of a blob survives its restart: the owner asks the upstream for the rest, the others ask a holder.
func TestPartsSurviveARestart(t *testing.T) {
	r := newTestRegistry(t)
	content := layer(1<<20, "layer")
	desc := r.pushBlob("org/app", "", content)
	r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content[:len(content)/2])
		w.(http.Flusher).Flush()
		<-req.Context().Done()
		return true
	})
	c := newTestCluster(t, r)
	ranked := c.ranked(blobKey(desc).owners)
	for _, n := range []*testNode{ranked[0], ranked[1]} {
		stream, err := n.router.Fetch(t.Context(), blobKey(desc), 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(stream, make([]byte, 400<<10)); err != nil {
			t.Fatal(err)
		}
		stream.Close()
	}
	for _, n := range []*testNode{ranked[1], ranked[0]} {
		n.stop(t)
		n.start(t)
	}
	r.setSpoil(nil)
	r.sentBytes()
	var here [2]int64
	for i := range here {
		if here[i] = ranked[i].store.Partial(desc.Digest, blobKey(desc).origin()); here[i] < 400<<10 {
			t.Errorf("node %d has kept %d bytes", i, here[i])
		}
	}
	body, err := ranked[0].content(t.Context(), ContentBlob, desc.Digest)
	if err != nil || !bytes.Equal(body, content) {
		t.Errorf("got %d bytes, %v", len(body), err)
	}
	if sent := r.sentBytes(); sent != int64(len(content))-here[0]+1 {
		t.Errorf("the upstream sent %d bytes, %d were here", sent, here[0])
	}
	eventually(t, "the owner is known as holder", func() bool {
		blob, _ := ranked[1].catalog.Snapshot().Blob(desc.Digest)
		return len(blob.Holders) == 1
	})
	body, err = ranked[1].content(t.Context(), ContentBlob, desc.Digest)
	if err != nil || !bytes.Equal(body, content) {
		t.Errorf("got %d bytes, %v", len(body), err)
	}
	if ranked[1].heldBytes.Load() != int64(len(content))-here[1] {
		t.Errorf("a holder gave %d bytes, %d were here", ranked[1].heldBytes.Load(), here[1])
	}
	if sent := r.sentBytes(); sent != 0 {
		t.Errorf("the upstream sent %d bytes more", sent)
	}
}

// A reader that is ahead of an owner that has begun anew waits for it, as long as it makes progress.
func TestReadersThatAreAheadOfANewOwner(t *testing.T) {
	r := newTestRegistry(t)
	content := layer(1<<20, "layer")
	desc := r.pushBlob("org/app", "", content)
	var asked atomic.Int32
	r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		rest, step := content, len(content)/32 // longer than the callers' patience
		if asked.Add(1) == 1 {                 // for the owner that dies: it must not stall before
			_, _ = w.Write(content[:len(content)/2])
			rest, step = content[len(content)/2:], 1
		}
		for len(rest) > 0 && req.Context().Err() == nil {
			_, _ = w.Write(rest[:step])
			w.(http.Flusher).Flush()
			rest = rest[step:]
			<-time.After(100 * time.Millisecond)
		}
		return true
	})
	c := newTimedCluster(t, r, Timings{Stall: 500 * time.Millisecond, Metadata: 500 * time.Millisecond})
	ranked := c.ranked(blobKey(desc).owners)
	ranked[2].router.patience = 0
	stream, err := ranked[2].router.Fetch(t.Context(), blobKey(desc), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	first := make([]byte, 500<<10)
	if _, err := io.ReadFull(stream, first); err != nil {
		t.Fatal(err)
	}
	c.set(func(c *testCluster) { c.dead = map[catalog.NodeID]bool{ranked[0].id: true} })
	rest, err := io.ReadAll(stream)
	if err != nil || !bytes.Equal(append(first, rest...), content) {
		t.Errorf("got %d bytes, %v", len(first)+len(rest), err)
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("the upstream was asked %d times: once, and once more for the change of owner", n)
	}
}
