package fill

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/policy"
	"github.com/ocistern/ocistern/internal/reference"
)

// recorded tells what is left behind of a fill: nothing, after a failure.
func recorded(t *testing.T, c *testCluster) []string {
	t.Helper()
	var found []string
	for _, n := range c.nodes {
		if stats := n.catalog.Snapshot().Stats(); stats != (catalog.Stats{}) {
			found = append(found, fmt.Sprintf("the catalog of %s has %+v", n.id, stats))
		}
		if usage := n.store.Usage(); usage.Blobs != 0 {
			found = append(found, fmt.Sprintf("the store of %s has %+v", n.id, usage))
		}
	}
	return found
}

// Guarantee G5: an error is never an answer. Whatever an upstream does, short of a definite 404 nothing is recorded.
func TestFailuresRecordNothing(t *testing.T) {
	subject := digest.FromString("subject")
	for _, c := range failures() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newTestRegistry(t)
			r.setSpoil(c.spoil)
			cluster := newTimedCluster(t, r, c.timings())
			n := cluster.ranked(Key{testTenant, testRepository, KindTag, "v1"}.owners)[1]
			_, err := n.tag(t.Context(), "v1")
			expect(t, "tag", err, c.tag)
			_, err = n.content(t.Context(), ContentManifest, subject)
			if reason := errdef.ReasonOf(err); err == nil || reason == errdef.NotFound {
				t.Errorf("manifest: got %v", err)
			}
			_, err = n.content(t.Context(), ContentBlob, subject)
			expect(t, "blob", err, c.blob)
			if c.referrers != "" {
				_, err = n.referrers(t.Context(), subject)
				expect(t, "referrers", err, c.referrers)
			}
			for _, found := range recorded(t, cluster) {
				t.Error(found)
			}
		})
	}
}

// The same check must see a Filler that takes any failure for an absence.
func TestTheRecordedCheckBites(t *testing.T) {
	r := newTestRegistry(t)
	r.setSpoil(status(http.StatusTooManyRequests))
	c := newTestCluster(t, r)
	f := c.nodes[0].filler
	if _, err := f.Refresh(t.Context(), Key{testTenant, testRepository, KindTag, "v1"}, 0); err != nil { // the planted bug
		absence := f.absence(testTenant, testRepository, catalog.AbsentTag, "v1", time.Now())
		if _, err := f.publish(t.Context(), absence); err != nil {
			t.Fatal(err)
		}
	}
	if len(recorded(t, c)) == 0 {
		t.Error("the check does not notice that a 429 became an absence")
	}
}

func TestAbsenceIsRecordedAndBelievedForAWhile(t *testing.T) {
	r := newTestRegistry(t)
	c := newTestCluster(t, r)
	now := time.Now()
	for _, n := range c.nodes {
		n.filler.Clock = func() time.Time { return now }
	}
	missing := digest.FromString("missing")
	ask := func() map[string]int {
		for _, n := range c.nodes {
			_, err := n.tag(t.Context(), "nope")
			expect(t, "tag", err, errdef.NotFound)
			_, err = n.content(t.Context(), ContentManifest, missing)
			expect(t, "manifest", err, errdef.NotFound)
			_, err = n.content(t.Context(), ContentBlob, missing)
			expect(t, "blob", err, errdef.NotFound)
			if list, err := n.referrers(t.Context(), missing); err != nil || len(list) > 0 {
				t.Errorf("referrers: %v, %v", list, err)
			}
		}
		return r.counts()
	}
	counts := ask()
	// A Refresh whose caller has seen the absence asks again; package registry would not have called.
	delete(counts, "/v2/org/app/manifests/nope")
	if twice := counted(counts); len(twice) > 0 || len(counts) != 3 {
		t.Errorf("%v: %v", twice, counts)
	}
	snapshot := c.nodes[0].catalog.Snapshot()
	if stats := snapshot.Stats(); stats.Absences != 3 || stats.Referrers != 1 {
		t.Errorf("recorded %+v", stats)
	}
	if list, ok := snapshot.Referrers(testTenant, testRepository, missing); !ok || len(list.Descriptors) != 0 {
		t.Errorf("the empty list is not proven: %+v", list)
	}
	now = now.Add(policy.Default().AbsentFor)
	if counts := ask(); counts["/v2/org/app/manifests/"+missing.String()] != 1 {
		t.Errorf("an old absence is still believed: %v", counts)
	}
}

func TestWithoutQuorum(t *testing.T) {
	r := newTestRegistry(t)
	image, blobs := r.pushImage("org/app", "v1", layer(1<<20, "layer"))
	c := newTimedCluster(t, r, Timings{Publish: time.Second})
	c.set(func(c *testCluster) { c.noQuorum = true })
	n := c.nodes[0]
	for range 2 { // the second time from what was proven the first time
		for kind, dgst := range map[ContentKind]digest.Digest{ContentManifest: image.Digest, ContentBlob: blobs[1].Digest} {
			body, err := n.content(t.Context(), kind, dgst)
			if err != nil || digest.FromBytes(body) != dgst {
				t.Errorf("content by digest: %d bytes, %v", len(body), err)
			}
			eventually(t, "the flights have ended", func() bool {
				return c.flying() == 0
			})
		}
	}
	for _, twice := range counted(r.counts()) {
		t.Error(twice)
	}
	_, err := n.tag(t.Context(), "v1")
	expect(t, "tag", err, errdef.NoQuorum)
	_, err = n.tag(t.Context(), "nope")
	expect(t, "a tag that does not exist", err, errdef.NoQuorum)
	_, err = n.referrers(t.Context(), image.Digest)
	expect(t, "referrers", err, errdef.NoQuorum)
	_, err = n.content(t.Context(), ContentBlob, digest.FromString("nope"))
	expect(t, "content that does not exist", err, errdef.NotFound)
	if stats := n.catalog.Snapshot().Stats(); stats != (catalog.Stats{}) {
		t.Fatalf("the catalog has %+v", stats)
	}

	c.set(func(c *testCluster) { c.noQuorum = false })
	r.counts()
	if _, err := n.content(t.Context(), ContentBlob, blobs[1].Digest); err != nil {
		t.Error(err)
	}
	eventually(t, "the link is published", func() bool {
		_, ok := n.catalog.Snapshot().Link(testTenant, testRepository, blobs[1].Digest)
		return ok
	})
	if counts := r.counts(); len(counts) > 0 {
		t.Errorf("what was proven was asked for again: %v", counts)
	}
}

// Wrong bytes reach nobody as a whole, leave nothing, and do not stand in the way of the right ones.
func TestWrongBytes(t *testing.T) {
	for _, size := range []int{1000, 1 << 20} {
		r := newTestRegistry(t)
		content := layer(size, "layer")
		desc := r.pushBlob("org/app", "", content)
		wrong := bytes.Clone(content)
		wrong[size-1] ^= 1
		for name, spoil := range map[string]struct {
			spoil func(http.ResponseWriter, *http.Request) bool
			want  errdef.Reason
		}{
			"flipped bit": {answer("a/b", string(wrong)), errdef.DigestMismatch},
			"shorter":     {answer("a/b", string(content[:size-1])), errdef.DigestMismatch},
			"cut off": {func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Length", fmt.Sprint(size))
				_, _ = w.Write(content[:size-1])
				panic(http.ErrAbortHandler)
			}, errdef.UpstreamUnavailable},
		} {
			c := newTestCluster(t, r)
			r.setSpoil(spoil.spoil)
			for _, n := range c.nodes {
				body, err := n.content(t.Context(), ContentBlob, desc.Digest)
				expect(t, name, err, spoil.want)
				if len(body) >= size {
					t.Errorf("%s: a caller got all %d bytes", name, len(body))
				}
			}
			for _, found := range recorded(t, c) {
				t.Errorf("%s: %s", name, found)
			}
			r.setSpoil(nil)
			for _, n := range c.nodes {
				if body, err := n.content(t.Context(), ContentBlob, desc.Digest); err != nil || !bytes.Equal(body, content) {
					t.Errorf("after %s: got %d bytes, %v", name, len(body), err)
				}
			}
		}
	}
}

func TestUnknownUpstreams(t *testing.T) {
	c := newTestCluster(t, newTestRegistry(t))
	router := c.nodes[0].router
	for repository, want := range map[reference.Repository]errdef.Reason{
		"other.test/app": errdef.UpstreamUnknown,
		"hosted":         errdef.UpstreamUnknown,
		"up.test":        errdef.NameInvalid,
	} {
		if router.Mirrors(repository) {
			t.Errorf("%s is mirrored", repository)
		}
		_, err := router.Refresh(t.Context(), Key{testTenant, repository, KindTag, "v1"}, 0)
		expect(t, string(repository), err, want)
		_, err = router.Fetch(t.Context(), ContentKey{testTenant, repository, ContentBlob, digest.FromString("x")}, 0)
		expect(t, string(repository), err, want)
	}
	if !router.Mirrors("up.test/org/app") {
		t.Error("up.test/org/app is not mirrored")
	}
	for _, key := range []Key{
		{testTenant, testRepository, KindTag, "sha256:x"}, {testTenant, testRepository, KindReferrers, "v1"},
		{testTenant, testRepository, 9, "v1"},
	} {
		if _, err := router.Refresh(t.Context(), key, 0); err == nil {
			t.Errorf("%+v was refreshed", key)
		}
	}
}
