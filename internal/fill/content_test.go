package fill

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/policy"
	"github.com/ocistern/ocistern/internal/reference"
)

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
	middle := make([]byte, 100<<10)
	if _, err := io.ReadFull(streams[2], middle); err != nil || !bytes.Equal(middle, content[offsets[2]:][:len(middle)]) {
		t.Errorf("reading along in the middle: %v", err)
	}
	close(gate)
	for n, stream := range streams {
		rest, err := io.ReadAll(stream)
		from := offsets[n]
		if n == 0 || n == 2 {
			from += int64(len(first))
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
		tag.Freshness.FreshUntil.Sub(tag.Freshness.Observed) != policy.Default().FreshFor ||
		tag.Source != catalog.SourceUpstream {
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

// verified takes content in, up to where it becomes durable.
func verified(t *testing.T, store *blobstore.Store, content []byte) *blobstore.Ingest {
	t.Helper()
	in, err := store.Begin(ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := in.Verify(); err != nil {
		t.Fatal(err)
	}
	return in
}

// The check that all of these tests make is checked: content that is verified, in memory, and not yet durable is found.
func TestTheDurableCheckBites(t *testing.T) {
	c := newTestCluster(t, newTestRegistry(t))
	content := layer(10, "layer")
	desc := ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
	in := verified(t, c.nodes[0].store, content)
	publish := catalog.Publish{Holder: c.nodes[0].id, Blobs: []ocispec.Descriptor{desc}}
	if early := c.undurable(publish); len(early) != 1 {
		t.Errorf("published too early: %v", early)
	}
	if err := in.Persist(); err != nil {
		t.Fatal(err)
	}
	if early := c.undurable(publish); len(early) != 0 {
		t.Errorf("durable, and found all the same: %v", early)
	}
}

// Bytes of a holder that lies are dropped: the owner or the upstream gives the right ones, from the start.
func TestHoldersThatLie(t *testing.T) {
	for _, size := range []int{1000, 1 << 20} {
		for _, whole := range []bool{true, false} {
			r := newTestRegistry(t)
			content := layer(size, "layer")
			desc := r.pushBlob("org/app", "", content)
			c := newTestCluster(t, r)
			key := ContentKey{testTenant, testRepository, ContentBlob, desc.Digest}
			ranked := c.ranked(key.owners)
			if _, err := ranked[0].content(t.Context(), ContentBlob, desc.Digest); err != nil {
				t.Fatal(err)
			}
			eventually(t, "all flights have ended", func() bool { return c.flying() == 0 })
			wrong := bytes.Clone(content)
			wrong[0] ^= 1
			if !whole {
				wrong = wrong[:size/2]
			}
			for _, n := range ranked {
				n.filler.Holders = liar{wrong, desc.Size}
			}
			if err := ranked[0].store.Remove(desc.Digest); err != nil {
				t.Fatal(err)
			}
			// The owner has lost it and knows no holder; the last node believes that the owner has it.
			for _, n := range []*testNode{ranked[2], ranked[1]} {
				body, err := n.content(t.Context(), ContentBlob, desc.Digest)
				if err != nil && size == 1000 { // nobody has had any of the wrong bytes
					t.Errorf("whole %v, %d bytes: %v", whole, size, err)
				}
				if err == nil && !bytes.Equal(body, content) {
					t.Errorf("whole %v: got %d wrong bytes", whole, len(body))
				}
				eventually(t, "it is durable and right", func() bool { _, ok := n.store.Stat(desc.Digest); return ok })
			}
		}
	}
}

// liar is a holder of the wrong bytes.
type liar struct {
	body []byte
	size int64
}

func (l liar) FetchHeld(
	_ context.Context, _ catalog.NodeID, _ digest.Digest, offset int64,
) (io.ReadCloser, int64, error) {
	return io.NopCloser(bytes.NewReader(l.body[min(offset, int64(len(l.body))):])), l.size, nil
}
