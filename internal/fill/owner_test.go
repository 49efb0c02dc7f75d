package fill

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

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

// What an owner gave away and did not publish before it died is published where it was read: the cluster has it, although
// the upstream is off by then.
func TestAnOwnerThatDiesUnheardIsNoLoss(t *testing.T) {
	for _, kind := range []ContentKind{ContentManifest, ContentBlob} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			r := newTestRegistry(t)
			content := layer(1000, "layer")
			image, _ := r.pushImage("org/app", "v1", content)
			c := newTimedCluster(t, r, Timings{Publish: 200 * time.Millisecond})
			key := ContentKey{testTenant, testRepository, kind, image.Digest}
			if kind == ContentBlob {
				key.Digest = digest.FromBytes(content)
			}
			ranked := c.ranked(key.owners)
			c.set(func(c *testCluster) { c.unheard = ranked[0].id })
			want, err := ranked[2].content(t.Context(), kind, key.Digest)
			if err != nil {
				t.Fatal(err)
			}
			c.set(func(c *testCluster) { c.dead[ranked[0].id] = true })
			r.setSpoil(status(http.StatusServiceUnavailable))
			eventually(t, "the last has published it", func() bool { return c.flying() == 0 })
			got, err := ranked[1].content(t.Context(), kind, key.Digest)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes of %d, %v", len(got), len(want), err)
			}
			_, known := ranked[1].catalog.Snapshot().Manifest(testTenant, testRepository, key.Digest)
			if known != (kind == ContentManifest) {
				t.Errorf("known as a manifest: %v", known)
			}
		})
	}
}

// A manifest may be wrong about the size of what it names. What a holder has was verified, although nobody published it.
func TestAClaimedSizeIsNotBelievedOfAHolder(t *testing.T) {
	r := newTestRegistry(t)
	content := layer(1000, "layer")
	config := r.pushBlob("org/app", ocispec.MediaTypeImageConfig, []byte(`{}`))
	blob := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(content), Size: 5}
	image := r.pushManifest("org/app", "v1", ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: []ocispec.Descriptor{blob},
	})
	c := newTestCluster(t, r)
	ranked := c.ranked(ContentKey{testTenant, testRepository, ContentBlob, blob.Digest}.owners)
	if _, err := ranked[2].content(t.Context(), ContentManifest, image.Digest); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the manifest is published", func() bool { return c.flying() == 0 })
	if err := verified(t, ranked[2].store, content).Persist(); err != nil {
		t.Fatal(err)
	}
	ranked[2].Announce(blob.Digest) // as its replicator does when it was killed before it published
	for _, n := range []*testNode{ranked[1], ranked[0]} {
		body, err := n.content(t.Context(), ContentBlob, blob.Digest)
		if err != nil || !bytes.Equal(body, content) {
			t.Errorf("%s: got %d bytes, %v", n.id, len(body), err)
		}
	}
	eventually(t, "the owner has published it", func() bool { return c.flying() == 0 })
	if known, _ := ranked[0].catalog.Snapshot().Blob(blob.Digest); known.Size != int64(len(content)) {
		t.Errorf("the catalog knows a size of %d, want %d", known.Size, len(content))
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

// A node that has not seen what the caller has is no owner: it would ask for what the others know.
func TestAnOwnerThatLagsIsReplaced(t *testing.T) {
	r := newTestRegistry(t)
	image, _ := r.pushImage("org/app", "v1", layer(10, "layer"))
	c := newTimedCluster(t, r, Timings{Publish: 100 * time.Millisecond})
	key := Key{testTenant, testRepository, KindTag, "v1"}
	ranked := c.ranked(key.owners)
	known := catalog.Publish{
		Tenant: testTenant, Repository: testRepository, Source: catalog.SourceUpstream, Holder: "n0",
		Tags: []catalog.TagUpdate{{
			Name: "v1", Descriptor: image, Freshness: catalog.Freshness{FreshUntil: time.Now().Add(time.Hour)},
		}},
	}
	for _, n := range ranked[1:] {
		if err := n.catalog.Apply(catalog.Entry{Index: 5, Command: known})[0].Err; err != nil {
			t.Fatal(err)
		}
	}
	index, err := ranked[1].router.Refresh(t.Context(), key, 4)
	if err != nil || index != 5 {
		t.Errorf("got index %d, %v", index, err)
	}
	if counts := r.counts(); len(counts) > 0 {
		t.Errorf("asked for %v", counts)
	}
}
