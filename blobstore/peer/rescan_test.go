package peer_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ocistern/ocistern/blobstore/storetest"
)

// What came with a snapshot of the catalog is told to nobody, and found by a scan.
func TestReplicatorRescan(t *testing.T) {
	c := newCluster(t, "a", "b")
	synctest.Test(t, func(t *testing.T) {
		replicator, stop := replicate(c, "b")
		defer stop()
		settle(time.Second)
		silent := c.publish(t, "a", storetest.Bytes("came with a snapshot", 100))
		settle(time.Minute)
		expectHeld(t, c, silent, "a")
		replicator.Rescan()
		settle(5 * time.Second)
		expectHeld(t, c, silent, "a", "b")
	})
}
