package fill

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/policy"
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
		now = now.Add(policy.Default().FreshFor)
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

// A change of leader while an answer is published costs no second request; one that does not end is reported.
func TestChangeOfLeaderIsRiddenOut(t *testing.T) {
	r := newTestRegistry(t)
	image, _ := r.pushImage("org/app", "v1", layer(1000, "layer"))
	c := newTestCluster(t, r)
	c.set(func(c *testCluster) { c.elections = publishAttempts - 1 })
	if _, err := c.nodes[0].tag(t.Context(), "v1"); err != nil {
		t.Errorf("tag: %v", err)
	}
	for _, twice := range counted(r.counts()) {
		t.Error(twice)
	}
	c.set(func(c *testCluster) { c.elections = publishAttempts })
	_, err := c.nodes[0].referrers(t.Context(), image.Digest)
	expect(t, "referrers", err, errdef.OutcomeUnknown)
}
