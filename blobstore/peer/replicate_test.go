package peer_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/blobstore/peer"
	"github.com/ocistern/ocistern/blobstore/storetest"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// replicate runs the replicator of a node until the returned function is called.
func replicate(c *cluster, self catalog.NodeID) (replicator *peer.Replicator, stop func()) {
	announcer := peer.NewAnnouncer(self, c.stores[self], c, quiet())
	replicator = peer.NewReplicator(peer.ReplicatorConfig{
		Self: self, Catalog: c.catalog, Store: c.stores[self], Source: c, Announcer: announcer, Logger: quiet(),
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { replicator.Run(ctx) })
	running.Go(func() { announcer.Run(ctx) })
	return replicator, func() {
		cancel()
		running.Wait()
	}
}

// settle lets all that is due within the time happen. The time is that of the test's bubble.
func settle(within time.Duration) {
	timer := time.NewTimer(within)
	<-timer.C
	synctest.Wait()
}

// expectHeld checks that nodes have content on disk and in the catalog, and that the others have neither.
func expectHeld(t *testing.T, c *cluster, dgst digest.Digest, want ...catalog.NodeID) {
	t.Helper()
	blob, _ := c.catalog.Snapshot().Blob(dgst)
	if !slices.Equal(blob.Holders, want) {
		t.Errorf("the catalog says %v hold %s, want %v", blob.Holders, dgst, want)
	}
	for node, store := range c.stores {
		if _, held := store.Stat(dgst); held != slices.Contains(want, node) {
			t.Errorf("node %s holds %s: %v", node, dgst, held)
		}
	}
}

func TestReplicatorCopiesSmallContent(t *testing.T) {
	c := newCluster(t, "a", "b")
	before := c.publish(t, "a", storetest.Bytes("before the start", 100))
	synctest.Test(t, func(t *testing.T) {
		replicator, stop := replicate(c, "b")
		defer stop()
		c.applied = replicator.Notice
		during := c.publish(t, "a", storetest.Bytes("while running", 100))
		large := c.publish(t, "a", storetest.Bytes("large", blobstore.SmallBytes+1))
		own := c.publish(t, "b", storetest.Bytes("own", 100))
		settle(time.Second)
		expectHeld(t, c, before, "a", "b")
		expectHeld(t, c, during, "a", "b")
		expectHeld(t, c, large, "a")
		expectHeld(t, c, own, "b")
	})
}

// What the queue cannot take is found by a scan.
func TestReplicatorOverflow(t *testing.T) {
	c := newCluster(t, "a", "b")
	synctest.Test(t, func(t *testing.T) {
		replicator, stop := replicate(c, "b")
		defer stop()
		settle(time.Second)
		c.misbehave("a", fault{slow: true}) // no copy fails: that, too, would lead to a scan
		for i := range 20 {                 // more than are copied at once: the replicator is busy now
			replicator.Recheck(c.publish(t, "a", fmt.Appendf(nil, "content %d", i)))
		}
		synctest.Wait()
		for i := range 5000 { // more than the queue takes
			replicator.Recheck(digest.FromString(fmt.Sprint(i)))
		}
		dropped := c.publish(t, "a", storetest.Bytes("dropped", 100))
		replicator.Notice([]catalog.Entry{{Command: c.commands[len(c.commands)-1]}})
		c.misbehave("a", fault{})
		settle(time.Minute)
		expectHeld(t, c, dropped, "a", "b")
	})
}

// everything is what a node holds that holds all there is.
type everything struct{}

func (everything) Stat(digest.Digest) (int64, bool) { return 1, true }

// What is announced within a short time, even many times, needs few log entries.
func TestAnnouncerBatches(t *testing.T) {
	c := newCluster(t)
	synctest.Test(t, func(t *testing.T) {
		announcer := peer.NewAnnouncer("a", everything{}, c, quiet())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go announcer.Run(ctx)
		for range 2 {
			for i := range 1200 {
				announcer.Announce(digest.FromString(fmt.Sprint(i)))
			}
		}
		settle(time.Second)
		told := map[digest.Digest]bool{}
		for _, command := range c.commands {
			for _, dgst := range command.(catalog.AddHolder).Digests {
				told[dgst] = true
			}
		}
		if len(told) != 1200 || len(c.commands) > 3 {
			t.Errorf("%d digests were told in %d log entries", len(told), len(c.commands))
		}
	})
}

// Failures of holders and a missing quorum delay the work, no more.
func TestReplicatorGoesOnAfterFailures(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.misbehave("a", fault{refuses: errdef.New(errdef.Unavailable, "away")})
	dgst := c.publish(t, "a", storetest.Bytes("failures", 100))
	synctest.Test(t, func(t *testing.T) {
		_, stop := replicate(c, "b")
		defer stop()
		settle(10 * time.Second)
		expectHeld(t, c, dgst, "a")
		if tries := len(c.requests()); tries < 2 || tries > 5 {
			t.Errorf("%d tries in 10 seconds", tries)
		}
		c.misbehave("a", fault{})
		c.writing.Lock()
		c.refuse = 3
		c.writing.Unlock()
		settle(time.Minute)
		expectHeld(t, c, dgst, "a", "b")
	})
}

// At the start, and whenever it is told to look, the node makes the catalog's word about itself true.
func TestReplicatorCorrectsTheCatalog(t *testing.T) {
	c := newCluster(t, "a", "b")
	large := storetest.Bytes("large", blobstore.SmallBytes+1)
	unlisted := c.publish(t, "a", large)
	storetest.Put(t, c.stores["b"], storetest.Describe(digest.SHA256, large), large)
	lost := c.publish(t, "b", storetest.Bytes("lost", 100))
	lostLarge := c.publish(t, "b", storetest.Bytes("lost", blobstore.SmallBytes+1))
	healed := storetest.Bytes("healed", 100)
	c.publish(t, "a", healed)
	quarantined := c.publish(t, "b", healed)
	for _, dgst := range []digest.Digest{lost, lostLarge} {
		if err := c.stores["b"].Remove(dgst); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		replicator, stop := replicate(c, "b")
		defer stop()
		settle(time.Second)
		expectHeld(t, c, unlisted, "a", "b")
		expectHeld(t, c, lost)
		expectHeld(t, c, lostLarge)
		expectHeld(t, c, quarantined, "a", "b")
		if err := c.stores["b"].Remove(quarantined); err != nil {
			t.Fatal(err)
		}
		replicator.Recheck(quarantined)
		settle(time.Second)
		expectHeld(t, c, quarantined, "a", "b")
		for _, asked := range c.requests() {
			if asked.node == "b" {
				t.Error("the node asked itself")
			}
		}
	})
}

// Content that comes back while the node takes its word back is announced again.
func TestAnnouncerSeesWhatComesBack(t *testing.T) {
	c := newCluster(t, "a")
	data := storetest.Bytes("back", 100)
	dgst := c.publish(t, "a", data)
	if err := c.stores["a"].Remove(dgst); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		announcer := peer.NewAnnouncer("a", c.stores["a"], c, quiet())
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { announcer.Run(ctx) })
		c.applied = func(entries []catalog.Entry) {
			if _, retracted := entries[0].Command.(catalog.RemoveHolder); retracted {
				storetest.Put(t, c.stores["a"], storetest.Describe(digest.SHA256, data), data)
			}
		}
		announcer.Announce(dgst)
		settle(time.Second)
		expectHeld(t, c, dgst, "a")
		cancel()
		running.Wait()
	})
}
