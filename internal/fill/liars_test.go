package fill

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/policy"
)

// maxLiarBytes is how much memory a node may take to hear one out.
const maxLiarBytes = 64 << 20

// gzipBomb returns compressed bytes that would become very many.
func gzipBomb(t *testing.T) []byte {
	t.Helper()
	var bomb bytes.Buffer
	writer := gzip.NewWriter(&bomb)
	if _, err := io.Copy(writer, zeros(256<<20)); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return bomb.Bytes()
}

// page is a page of referrers, with a link to the next one.
func page(w http.ResponseWriter, r *http.Request, referrers int) bool {
	endpoint, subject := endpointOf(r.URL.Path)
	if endpoint != operationReferrers {
		return false
	}
	number, _ := strconv.Atoi(r.URL.Query().Get("page"))
	w.Header().Set("Link", fmt.Sprintf("<%s?page=%d>; rel=\"next\"", r.URL.Path, number+1))
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	_, err := io.WriteString(w, `{"schemaVersion":2,"manifests":[`)
	for i := 0; i < referrers && err == nil; i++ {
		comma := ","
		if i == 0 {
			comma = ""
		}
		_, err = fmt.Fprintf(w, `%s{"mediaType":%q,"digest":%q,"size":7}`, comma, ocispec.MediaTypeImageManifest,
			digest.FromString(fmt.Sprint(subject, number, i)))
	}
	_, _ = io.WriteString(w, "]}")
	return true
}

// hostile is an upstream that wants to do harm. ask asks it for something; the error must be of the reason, in time, and cost
// no more memory than is allowed.
type hostile struct {
	name   string
	spoil  func(w http.ResponseWriter, r *http.Request) bool
	ask    func(t *testing.T, n *testNode, image ocispec.Descriptor, blobs []ocispec.Descriptor) error
	reason errdef.Reason
	stall  time.Duration // that is noticed by a time-out only
}

func askTag(t *testing.T, n *testNode, _ ocispec.Descriptor, _ []ocispec.Descriptor) error {
	_, err := n.tag(t.Context(), "v1")
	return err
}

func askReferrers(t *testing.T, n *testNode, image ocispec.Descriptor, _ []ocispec.Descriptor) error {
	_, err := n.referrers(t.Context(), image.Digest)
	return err
}

func askBlob(t *testing.T, n *testNode, _ ocispec.Descriptor, blobs []ocispec.Descriptor) error {
	_, err := n.content(t.Context(), ContentBlob, blobs[1].Digest)
	return err
}

func liars(t *testing.T) []hostile {
	bomb := gzipBomb(t)
	length := func(stated int, sent string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			w.Header().Set("Content-Length", strconv.Itoa(stated))
			_, _ = io.WriteString(w, sent)
			panic(http.ErrAbortHandler)
		}
	}
	compressed := func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		w.Header().Set("Content-Encoding", "gzip")
		writeWhole(w, bomb)
		return true
	}
	return []hostile{
		{"a manifest shorter than stated", length(900, `{"schemaVersion":2}`), askTag, errdef.UpstreamUnavailable, 0},
		{"a blob shorter than stated", length(900, "x"), askBlob, errdef.UpstreamUnavailable, 0},
		{"a blob of another length", func(w http.ResponseWriter, r *http.Request) bool {
			writeWhole(w, []byte("not the layer, and not its length"))
			return true
		}, askBlob, errdef.DigestMismatch, 0},
		{"a compressed bomb for a manifest", compressed, askTag, errdef.ManifestTooLarge, 0},
		{"a compressed bomb for referrers", compressed, askReferrers, errdef.ManifestTooLarge, 0},
		{"a compressed bomb for a blob", compressed, askBlob, errdef.DigestMismatch, 0},
		{"a million referrers", func(w http.ResponseWriter, r *http.Request) bool { return page(w, r, 1_000_000) }, askReferrers, errdef.ManifestTooLarge, 0},
		{"paging that never ends", func(w http.ResponseWriter, r *http.Request) bool { return page(w, r, 1) }, askReferrers, errdef.UpstreamInvalid, 0},
		{"empty pages that never end", func(w http.ResponseWriter, r *http.Request) bool { return page(w, r, 0) }, askReferrers, errdef.UpstreamInvalid, 0},
		{"a page that is its own next", func(w http.ResponseWriter, r *http.Request) bool {
			if endpoint, _ := endpointOf(r.URL.Path); endpoint != operationReferrers {
				return false
			}
			w.Header().Set("Link", "<"+r.URL.Path+">; rel=\"next\"")
			return answer(ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[]}`)(w, r)
		}, askReferrers, errdef.UpstreamInvalid, 0},
		{"a stall before the last byte", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, strings.Repeat("x", 99))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return true
		}, askBlob, errdef.UpstreamTimeout, 500 * time.Millisecond},
		{"many headers", func(w http.ResponseWriter, r *http.Request) bool {
			for i := range 20_000 {
				w.Header().Add("X-Liar", strings.Repeat("x", 100)+strconv.Itoa(i))
			}
			return answer(ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[]}`)(w, r)
		}, askTag, errdef.UpstreamUnavailable, 0},
	}
}

// TestLiars: a typed error, bounded memory and time, nothing cached, and callers of another upstream do not notice.
func TestLiars(t *testing.T) {
	for _, l := range liars(t) {
		t.Run(l.name, func(t *testing.T) {
			r := newTestRegistry(t)
			image, blobs := r.pushImage("org/app", "v1", layer(2000, "layer"))
			r.setSpoil(l.spoil)
			c := newTimedCluster(t, r, Timings{Stall: l.stall})
			n := c.nodes[0]
			stop := make(chan struct{})
			most := watchMemory(stop)
			begun := time.Now()
			err := l.ask(t, n, image, blobs)
			took := time.Since(begun)
			close(stop)
			expect(t, l.name, err, l.reason)
			if grown := <-most; grown > maxLiarBytes {
				t.Errorf("%d MiB were taken, at most %d are allowed", grown>>20, maxLiarBytes>>20)
			}
			if took > 20*time.Second { // of a busy machine
				t.Errorf("it took %s", took)
			}
			for _, found := range recorded(t, c) {
				t.Error(found)
			}
			r.setSpoil(nil)
			if _, err := c.nodes[1].tag(t.Context(), "v1"); err != nil {
				t.Errorf("when it tells the truth again: %v", err)
			}
		})
	}
}

// watchMemory returns by how much the heap has grown at most, once stop is closed.
func watchMemory(stop <-chan struct{}) <-chan uint64 {
	most := make(chan uint64, 1)
	heap := func() uint64 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	runtime.GC()
	before := heap()
	go func() {
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		var grown uint64
		for {
			select {
			case <-ticker.C:
				if now := heap(); now > before {
					grown = max(grown, now-before)
				}
			case <-stop:
				most <- grown
				return
			}
		}
	}()
	return most
}

// TestFlippingTag: a tag that points elsewhere each time means one thing at one index, on all nodes, and its history is bounded.
func TestFlippingTag(t *testing.T) {
	r := newTestRegistry(t)
	c := newTestCluster(t, r)
	if _, err := c.Apply(t.Context(), catalog.RaiseLevel{Level: catalog.LevelRequests}); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, n := range c.nodes {
		n.filler.Clock = func() time.Time { return now }
	}
	flips := 0
	r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
		flips++
		r.pushImage("org/app", "v1", []byte(strconv.Itoa(flips%3)))
		return false
	})
	key := Key{testTenant, testRepository, KindTag, "v1"}
	for i := range 3 * catalog.MaxTagHistory {
		n := c.nodes[i%len(c.nodes)]
		if _, err := n.router.Refresh(t.Context(), key, n.catalog.Snapshot().Index()); err != nil {
			t.Fatal(err)
		}
		now = now.Add(policy.Default().FreshFor)
		first, _ := c.nodes[0].catalog.Snapshot().Tag(testTenant, testRepository, "v1")
		for _, other := range c.nodes[1:] {
			if tag, _ := other.catalog.Snapshot().Tag(testTenant, testRepository, "v1"); tag.Descriptor.Digest != first.Descriptor.Digest {
				t.Fatalf("at index %d, node %s has %s and the first one %s", other.catalog.Snapshot().Index(), other.id,
					tag.Descriptor.Digest, first.Descriptor.Digest)
			}
		}
	}
	history := c.nodes[0].catalog.Snapshot().History(testTenant, testRepository, "v1")
	if len(history) != catalog.MaxTagHistory+1 {
		t.Errorf("%d events after %d flips", len(history), flips)
	}
}

// TestReferrersOfAnotherSubject: a list that names the signature of one image for another is refused, and the first one keeps
// its own.
func TestReferrersOfAnotherSubject(t *testing.T) {
	r := newTestRegistry(t)
	signed, _ := r.pushImage("org/app", "v1", []byte("signed"))
	other, _ := r.pushImage("org/app", "v2", []byte("not signed"))
	signature := r.pushReferrer("org/app", signed, 1)
	n := newTestCluster(t, r).nodes[0]
	if _, err := n.content(t.Context(), ContentManifest, signature.Digest); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the signature is known", func() bool {
		_, known := n.catalog.Snapshot().Manifest(testTenant, testRepository, signature.Digest)
		return known
	})
	r.setSpoil(func(_ http.ResponseWriter, req *http.Request) bool {
		req.URL.Path = strings.Replace(req.URL.Path, other.Digest.String(), signed.Digest.String(), 1)
		return false
	})
	_, err := n.referrers(t.Context(), other.Digest)
	expect(t, "the other's referrers", err, errdef.UpstreamInvalid)
	if list, err := n.referrers(t.Context(), signed.Digest); err != nil || len(list) != 1 {
		t.Errorf("the referrers of the signed one: %v, %v", list, err)
	}
}
