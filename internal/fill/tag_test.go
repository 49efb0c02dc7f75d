package fill

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/policy"
)

// asked records the methods of the requests for the manifests of tags.
type asked struct {
	// mutex guards methods.
	mutex   sync.Mutex
	methods []string
	answer  func(w http.ResponseWriter, r *http.Request) bool
}

func (a *asked) spoil(w http.ResponseWriter, r *http.Request) bool {
	if _, tag := endpointOf(r.URL.Path); strings.HasPrefix(tag, "v") {
		a.mutex.Lock()
		a.methods = append(a.methods, r.Method)
		a.mutex.Unlock()
	}
	return a.answer != nil && a.answer(w, r)
}

func (a *asked) take() []string {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	taken := a.methods
	a.methods = nil
	return taken
}

func head(answer func(http.ResponseWriter, *http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool { return r.Method == http.MethodHead && answer(w, r) }
}

// TestRevalidation refreshes a tag twice, and looks how the upstream was asked the second time.
func TestRevalidation(t *testing.T) {
	other := head(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set(headerDigest, "sha256:"+strings.Repeat("ab", 32))
		w.Header().Set("Content-Length", "7")
		return true
	})
	for name, c := range map[string]struct {
		moves  bool
		answer func(http.ResponseWriter, *http.Request) bool
		want   []string
		reason errdef.Reason
	}{
		"unchanged":           {want: []string{"HEAD"}},
		"moved":               {moves: true, want: []string{"HEAD", "GET"}},
		"HEAD is refused":     {answer: head(status(http.StatusMethodNotAllowed)), want: []string{"HEAD", "GET"}},
		"HEAD is denied":      {answer: head(status(http.StatusForbidden)), want: []string{"HEAD", "GET"}},
		"HEAD finds nothing":  {answer: head(status(http.StatusNotFound)), want: []string{"HEAD", "GET"}},
		"HEAD has no digest":  {answer: head(func(w http.ResponseWriter, _ *http.Request) bool { return true }), want: []string{"HEAD", "GET"}},
		"HEAD lies":           {answer: other, want: []string{"HEAD", "GET"}},
		"HEAD is throttled":   {answer: head(status(http.StatusTooManyRequests)), want: []string{"HEAD"}, reason: errdef.UpstreamThrottled},
		"both find nothing":   {answer: status(http.StatusNotFound), want: []string{"HEAD", "GET"}, reason: errdef.NotFound},
		"HEAD of another tag": {moves: true, answer: other, want: []string{"HEAD", "GET"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTestRegistry(t)
			image, _ := r.pushImage("org/app", "v1", []byte("layer"))
			a := &asked{}
			r.setSpoil(a.spoil)
			n := newTestCluster(t, r).nodes[0]
			now := time.Now()
			n.filler.Clock = func() time.Time { return now }
			key := Key{testTenant, testRepository, KindTag, "v1"}
			first, err := n.filler.Refresh(t.Context(), key, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := a.take(); !slices.Equal(got, []string{"GET"}) {
				t.Errorf("an unknown tag is asked by %v", got)
			}
			a.answer = c.answer
			want := image.Digest
			if c.moves {
				moved, _ := r.pushImage("org/app", "v1", []byte("another layer"))
				want = moved.Digest
			}
			now = now.Add(policy.Default().FreshFor)
			_, err = n.filler.Refresh(t.Context(), key, first)
			expect(t, name, err, c.reason)
			if got := a.take(); !slices.Equal(got, c.want) {
				t.Errorf("asked by %v, want %v", got, c.want)
			}
			tag, _ := n.catalog.Snapshot().Tag(testTenant, testRepository, "v1")
			if c.reason == "" && (tag.Descriptor.Digest != want || !tag.Freshness.Observed.Equal(now) || (len(tag.History) == 1) != c.moves) {
				t.Errorf("the tag is %+v, want %s confirmed at %s", tag, want, now)
			}
			if name == "HEAD lies" {
				now = now.Add(policy.Default().FreshFor)
				if _, err := n.filler.Refresh(t.Context(), key, n.catalog.Snapshot().Index()); err != nil {
					t.Error(err)
				}
				if got := a.take(); !slices.Equal(got, []string{"GET"}) {
					t.Errorf("after its lie, asked by %v", got)
				}
			}
		})
	}
}

// TestInvalidatedOnItsWay: an answer that the upstream gave before an invalidation is not what callers get after it.
func TestInvalidatedOnItsWay(t *testing.T) {
	for _, times := range []int{1, 10 * maxInvalidated} {
		r := newTestRegistry(t)
		r.pushImage("org/app", "v1", []byte("layer"))
		c := newTestCluster(t, r)
		if _, err := c.Apply(t.Context(), catalog.RaiseLevel{Level: catalog.LevelRequests}); err != nil {
			t.Fatal(err)
		}
		left := times
		r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
			r.serve(w, req) // what is true now
			if left--; left >= 0 {
				r.pushImage("org/app", "v1", []byte{byte(left)}) // it moves, and somebody says so
				if _, err := c.Apply(req.Context(), catalog.Invalidate{Tenant: testTenant, Repository: testRepository}); err != nil {
					t.Error(err)
				}
			}
			return true
		})
		n := c.nodes[0]
		_, err := n.router.Refresh(t.Context(), Key{testTenant, testRepository, KindTag, "v1"}, 0)
		if times > 1 {
			expect(t, "invalidated all the time", err, errdef.Unavailable)
			continue
		}
		tag, _ := n.catalog.Snapshot().Tag(testTenant, testRepository, "v1")
		if err != nil || tag.Freshness == (catalog.Freshness{}) || len(tag.History) != 1 {
			t.Errorf("%v: the tag is %+v", err, tag)
		}
	}
}
