package fill

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// counted fails for every object that the registry was asked for more than once.
func counted(counts map[string]int) []string {
	var twice []string
	for path, n := range counts {
		if n != 1 {
			twice = append(twice, fmt.Sprintf("%s was asked for %d times", path, n))
		}
	}
	return twice
}

// verifyEverywhere lets callers on all nodes verify one image at once.
func verifyEverywhere(t *testing.T, c *testCluster, callers int) {
	t.Helper()
	var group sync.WaitGroup
	for n := range callers {
		group.Go(func() {
			if err := c.nodes[n%len(c.nodes)].verify(t.Context(), "v1", 5); err != nil {
				t.Errorf("caller %d: %v", n, err)
			}
		})
	}
	group.Wait()
}

// Guarantee G7: callers on three nodes that miss the same objects cause one upstream request each.
func TestEveryObjectIsAskedForOnce(t *testing.T) {
	for _, api := range []bool{true, false} {
		t.Run(fmt.Sprintf("referrers API %v", api), func(t *testing.T) {
			r := newTestRegistry(t)
			r.noReferrersAPI = !api
			image, _ := r.pushImage("org/app", "v1", layer(600<<10, "layer"))
			for n := range 5 {
				r.pushReferrer("org/app", image, n)
			}
			c := newTestCluster(t, r)
			verifyEverywhere(t, c, 200)
			counts := r.counts()
			for _, twice := range counted(counts) {
				t.Error(twice)
			}
			// The image's manifest came with its tag; 5 signatures; 6 lists; config and layer, empty config, 5 envelopes.
			objects := 0
			for path := range counts {
				if api || !strings.Contains(path, "/referrers/") {
					objects++
				}
			}
			if want := 1 + 5 + 6 + 2 + 1 + 5; objects != want {
				t.Errorf("%d objects were asked for, want %d: %v", objects, want, counts)
			}
			verifyEverywhere(t, c, 30)
			if again := r.counts(); len(again) > 0 {
				t.Errorf("a warm cluster asked for %v", again)
			}
			if c.observer.avoided == 0 {
				t.Error("nothing was counted as avoided")
			}
		})
	}
}

// The same check must see it when each node asks by itself.
func TestTheCountBites(t *testing.T) {
	r := newTestRegistry(t)
	image, _ := r.pushImage("org/app", "v1", layer(1<<10, "layer"))
	for n := range 5 {
		r.pushReferrer("org/app", image, n)
	}
	c := newTestCluster(t, r)
	for _, n := range c.nodes {
		n.router.Members = loner{n.id} // the planted bug: every node takes itself for the only one
	}
	gate := make(chan struct{})
	r.setSpoil(func(http.ResponseWriter, *http.Request) bool { <-gate; return false })
	release := sync.OnceFunc(func() { close(gate) })
	defer release()
	go func() { // all three are asking for the tag
		eventually(t, "three requests for one tag", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.requests["/v2/org/app/manifests/v1"] == 3
		})
		release()
	}()
	verifyEverywhere(t, c, 6)
	if len(counted(r.counts())) == 0 {
		t.Error("the count does not notice three nodes that each ask by themselves")
	}
}

type loner struct{ self catalog.NodeID }

func (l loner) Self() catalog.NodeID     { return l.self }
func (l loner) Living() []catalog.NodeID { return []catalog.NodeID{l.self} }

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
		if _, err := f.publish(t.Context(), f.absence(testTenant, testRepository, catalog.AbsentTag, "v1", time.Now())); err != nil {
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
	now = now.Add(DefaultPolicy().AbsentFor)
	if counts := ask(); counts["/v2/org/app/manifests/"+missing.String()] != 1 {
		t.Errorf("an old absence is still believed: %v", counts)
	}
}

func TestFreshFactsAreNotAskedForAgain(t *testing.T) {
	r := newTestRegistry(t)
	image, _ := r.pushImage("org/app", "v1", layer(10, "layer"))
	c := newTestCluster(t, r)
	now := time.Now()
	for _, key := range []Key{
		{testTenant, testRepository, KindTag, "v1"},
		{testTenant, testRepository, KindReferrers, image.Digest.String()},
	} {
		owner := c.ranked(key.owners)[0]
		owner.filler.Clock = func() time.Time { return now }
		seen := owner.catalog.Snapshot().Index()
		refresh := func(seen catalog.LogIndex, want int) catalog.LogIndex {
			t.Helper()
			index, err := c.ranked(key.owners)[1].router.Refresh(t.Context(), key, seen)
			if err != nil {
				t.Fatal(err)
			}
			if total := len(r.counts()); total != want {
				t.Errorf("%d requests, want %d", total, want)
			}
			return index
		}
		published := refresh(seen, 1)
		if again := refresh(seen, 0); again < published {
			t.Errorf("answered with index %d, before %d", again, published)
		}
		refresh(published, 1) // the caller has seen it and wants a newer one
		now = now.Add(DefaultPolicy().FreshFor)
		refresh(seen, 1)
	}
}

func TestCallersThatLeaveDoNotStopAFill(t *testing.T) {
	r := newTestRegistry(t)
	_, blobs := r.pushImage("org/app", "v1", layer(1<<20, "layer"))
	gate := make(chan struct{})
	r.setSpoil(func(http.ResponseWriter, *http.Request) bool { <-gate; return false })
	c := newTestCluster(t, r)
	key := ContentKey{testTenant, testRepository, ContentBlob, blobs[1].Digest}
	ranked := c.ranked(key.owners)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 2)
	go func() {
		_, err := ranked[1].router.Fetch(ctx, key, 0)
		failed <- err
	}()
	go func() {
		_, err := ranked[1].tag(ctx, "v1")
		failed <- err
	}()
	eventually(t, "both requests", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.requests) == 2
	})
	cancel()
	for range 2 {
		expect(t, "caller", <-failed, errdef.Canceled)
	}
	close(gate)
	eventually(t, "the tag is published", func() bool {
		_, ok := c.nodes[0].catalog.Snapshot().Tag(testTenant, testRepository, "v1")
		return ok
	})
	eventually(t, "both nodes hold the layer", func() bool {
		blob, _ := c.nodes[0].catalog.Snapshot().Blob(key.Digest)
		return len(blob.Holders) == 2
	})
	for _, twice := range counted(r.counts()) {
		t.Error(twice)
	}
}

// A reader that waits for bytes is woken by the end of its context.
func TestReadersEndWithTheirContext(t *testing.T) {
	r := newTestRegistry(t)
	content := layer(1<<20, "layer")
	desc := r.pushBlob("org/app", "", content)
	gate := make(chan struct{})
	defer close(gate)
	r.setSpoil(half(content, gate))
	c := newTestCluster(t, r)
	key := ContentKey{testTenant, testRepository, ContentBlob, desc.Digest}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := c.ranked(key.owners)[0].router.Fetch(ctx, key, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if _, err := io.ReadFull(stream, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err = io.Copy(io.Discard, stream)
	expect(t, "read", err, errdef.Canceled)
}

// half answers a blob's first half, and the rest when the gate opens.
func half(content []byte, gate chan struct{}) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, req *http.Request) bool {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content[:len(content)/2])
		w.(http.Flusher).Flush()
		select {
		case <-gate:
		case <-req.Context().Done():
		}
		_, _ = w.Write(content[len(content)/2:])
		return true
	}
}

func TestCallersReadAlongFromAnyOffset(t *testing.T) {
	r := newTestRegistry(t)
	content := layer(1<<20, "layer")
	desc := r.pushBlob("org/app", "", content)
	gate := make(chan struct{})
	r.setSpoil(half(content, gate))
	c := newTestCluster(t, r)
	key := ContentKey{testTenant, testRepository, ContentBlob, desc.Digest}
	var streams []*Stream
	offsets := []int64{0, 1000, 300 << 10, 700 << 10, 1 << 20}
	for n, offset := range offsets {
		stream, err := c.nodes[n%3].router.Fetch(t.Context(), key, offset)
		if err != nil || stream.Descriptor.Size != desc.Size {
			t.Fatalf("offset %d: %v", offset, err)
		}
		streams = append(streams, stream)
	}
	if _, err := c.nodes[0].router.Fetch(t.Context(), key, 1<<20+1); errdef.ReasonOf(err) != errdef.RangeInvalid {
		t.Errorf("an offset beyond the end: %v", err)
	}
	first := make([]byte, 100<<10) // before the upstream has sent all of it
	if _, err := io.ReadFull(streams[0], first); err != nil || !bytes.Equal(first, content[:len(first)]) {
		t.Errorf("reading along: %v", err)
	}
	close(gate)
	for n, stream := range streams {
		rest, err := io.ReadAll(stream)
		from := offsets[n]
		if n == 0 {
			from = int64(len(first))
		}
		if err != nil || !bytes.Equal(rest, content[from:]) {
			t.Errorf("offset %d: %d bytes, %v", offsets[n], len(rest), err)
		}
		stream.Close()
	}
	for _, twice := range counted(r.counts()) {
		t.Error(twice)
	}
}

func TestADeadOwnerIsReplaced(t *testing.T) {
	r := newTestRegistry(t)
	image, _ := r.pushImage("org/app", "v1", layer(10, "layer"))
	c := newTestCluster(t, r)
	for _, key := range []Key{
		{testTenant, testRepository, KindTag, "v1"},
		{testTenant, testRepository, KindReferrers, image.Digest.String()},
	} {
		ranked := c.ranked(key.owners)
		c.set(func(c *testCluster) { c.dead = map[catalog.NodeID]bool{ranked[0].id: true} })
		for _, n := range ranked[1:] {
			if _, err := n.router.Refresh(t.Context(), key, 0); err != nil {
				t.Errorf("%v at %s: %v", key, n.id, err)
			}
		}
	}
	for _, twice := range counted(r.counts()) {
		t.Error(twice)
	}
}

// An owner that dies while bytes arrive is replaced by the next in rank, and the callers go on where they were.
func TestAnOwnerThatDiesMidFillIsReplaced(t *testing.T) {
	r := newTestRegistry(t)
	content := layer(1<<20, "layer")
	desc := r.pushBlob("org/app", "", content)
	gate := make(chan struct{})
	r.setSpoil(half(content, gate))
	c := newTestCluster(t, r)
	key := ContentKey{testTenant, testRepository, ContentBlob, desc.Digest}
	ranked := c.ranked(key.owners)
	stream, err := ranked[2].router.Fetch(t.Context(), key, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	first := make([]byte, 400<<10)
	if _, err := io.ReadFull(stream, first); err != nil {
		t.Fatal(err)
	}
	c.set(func(c *testCluster) { c.dead[ranked[0].id] = true })
	close(gate)
	rest, err := io.ReadAll(stream)
	if err != nil || !bytes.Equal(append(first, rest...), content) {
		t.Errorf("got %d bytes, %v", len(first)+len(rest), err)
	}
	if n := r.counts()["/v2/org/app/blobs/"+desc.Digest.String()]; n != 2 {
		t.Errorf("the upstream was asked %d times: once, and once more for the change of owner", n)
	}
}

// Errors of an owner that was reached are final: the next in rank is not asked to try the same upstream.
func TestUpstreamErrorsAreFinal(t *testing.T) {
	r := newTestRegistry(t)
	r.setSpoil(status(http.StatusInternalServerError))
	c := newTestCluster(t, r)
	_, err := c.ranked(Key{testTenant, testRepository, KindTag, "v1"}.owners)[2].tag(t.Context(), "v1")
	expect(t, "tag", err, errdef.UpstreamUnavailable)
	_, err = c.ranked(ContentKey{testTenant, testRepository, ContentBlob, "sha256:x"}.owners)[2].
		content(t.Context(), ContentBlob, digest.FromString("x"))
	expect(t, "blob", err, errdef.UpstreamUnavailable)
	for _, twice := range counted(r.counts()) {
		t.Error(twice)
	}
}

// Guarantee G8: what the cluster holds for one repository is proven at the upstream before another one gets it.
func TestContentHeldForAnotherRepositoryIsProven(t *testing.T) {
	r := newTestRegistry(t)
	content := layer(10<<10, "layer")
	desc := r.pushBlob("org/app", "", content)
	c := newTestCluster(t, r)
	n := c.nodes[0]
	if _, err := n.content(t.Context(), ContentBlob, desc.Digest); err != nil {
		t.Fatal(err)
	}
	for _, repository := range []reference.Repository{"up.test/other", "up.test/org/app"} {
		for _, tenant := range []reference.Tenant{testTenant, "stranger"} {
			if repository == testRepository && tenant == testTenant {
				continue
			}
			r.counts()
			_, err := n.router.Fetch(t.Context(), ContentKey{tenant, repository, ContentBlob, desc.Digest}, 0)
			want := errdef.Reason("")
			if repository != testRepository {
				want = errdef.NotFound
			}
			expect(t, string(tenant)+" "+string(repository), err, want)
			if len(r.counts()) != 1 {
				t.Errorf("%s %s: the upstream was not asked", tenant, repository)
			}
		}
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

// Between commit and application no second request slips in: the flight stays joinable until the owner has applied.
func TestFlightsLastUntilTheirPublicationIsApplied(t *testing.T) {
	r := newTestRegistry(t)
	content := layer(1<<20, "layer")
	desc := r.pushBlob("org/app", "", content)
	c := newTestCluster(t, r)
	c.set(func(c *testCluster) { c.lagging = true })
	key := ContentKey{testTenant, testRepository, ContentBlob, desc.Digest}
	owner := c.ranked(key.owners)[0]
	fetch := func() {
		t.Helper()
		if body, err := owner.content(t.Context(), ContentBlob, desc.Digest); err != nil || !bytes.Equal(body, content) {
			t.Errorf("got %d bytes, %v", len(body), err)
		}
	}
	fetch()
	eventually(t, "the publication is committed", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.index > 0
	})
	fetch()
	fetch()
	c.set(func(c *testCluster) {
		c.lagging = false
		if err := c.applyHeld(); err != nil {
			t.Error(err)
		}
	})
	fetch()
	for _, twice := range counted(r.counts()) {
		t.Error(twice)
	}
}

// Content that is linked and lost on this node comes back from the others, while the upstream is away.
func TestHoldersAreAskedFirst(t *testing.T) {
	for _, size := range []int{1000, 1 << 20} {
		r := newTestRegistry(t)
		content := layer(size, "layer")
		desc := r.pushBlob("org/app", "", content)
		c := newTestCluster(t, r)
		for _, n := range c.nodes {
			if _, err := n.content(t.Context(), ContentBlob, desc.Digest); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "all nodes hold it", func() bool {
			blob, _ := c.nodes[0].catalog.Snapshot().Blob(desc.Digest)
			return len(blob.Holders) == 3
		})
		r.Close()
		for _, n := range c.nodes {
			if err := n.store.Remove(desc.Digest); err != nil {
				t.Fatal(err)
			}
			if body, err := n.content(t.Context(), ContentBlob, desc.Digest); err != nil || !bytes.Equal(body, content) {
				t.Errorf("%s got %d bytes, %v", n.id, len(body), err)
			}
			eventually(t, "it is durable again", func() bool { _, ok := n.store.Stat(desc.Digest); return ok })
		}
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

// What a Filler publishes is what the catalog needs to answer without it.
func TestWhatIsPublished(t *testing.T) {
	r := newTestRegistry(t)
	image, blobs := r.pushImage("org/app", "v1", layer(10, "layer"))
	signature := r.pushReferrer("org/app", image, 1)
	c := newTestCluster(t, r)
	if err := c.nodes[0].verify(t.Context(), "v1", 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all flights have ended", func() bool { return c.flying() == 0 })
	snapshot := c.nodes[2].catalog.Snapshot()
	tag, _ := snapshot.Tag(testTenant, testRepository, "v1")
	if tag.Descriptor.Digest != image.Digest || tag.Descriptor.MediaType != image.MediaType ||
		tag.Freshness.FreshUntil.Sub(tag.Freshness.Observed) != DefaultPolicy().FreshFor || tag.Source != catalog.SourceUpstream {
		t.Errorf("tag %+v", tag)
	}
	manifest, _ := snapshot.Manifest(testTenant, testRepository, signature.Digest)
	if manifest.Subject != image.Digest || manifest.Descriptor.ArtifactType != "application/vnd.test.signature" ||
		manifest.Descriptor.Annotations["n"] != "1" || len(manifest.Children) != 2 {
		t.Errorf("signature %+v", manifest)
	}
	for _, desc := range append(blobs, image, signature) {
		link, ok := snapshot.Link(testTenant, testRepository, desc.Digest)
		if !ok || link.Size != desc.Size || link.MediaType != desc.MediaType {
			t.Errorf("link of %+v: %+v", desc, link)
		}
	}
	list, _ := snapshot.Referrers(testTenant, testRepository, image.Digest)
	if len(list.Descriptors) != 1 || list.Descriptors[0].ArtifactType != "application/vnd.test.signature" {
		t.Errorf("referrers %+v", list)
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
