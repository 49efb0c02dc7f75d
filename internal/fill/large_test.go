package fill

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

var gigabytes = flag.Int64("fill.gigabytes", 2, "size of the blob that TestHugeBlobs moves; with -short a tenth of one")

// zeros gives so many zero bytes.
func zeros(size int64) io.Reader { return io.LimitReader(zeroReader{}, size) }

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A blob of any size passes in bounded memory, although its upstream cuts it off, and a reader in its middle gets bytes
// before the end has come.
func TestHugeBlobs(t *testing.T) {
	size := *gigabytes << 30
	if testing.Short() {
		size = 100 << 20
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, zeros(size)); err != nil {
		t.Fatal(err)
	}
	desc := ocispec.Descriptor{Digest: digest.NewDigest(digest.SHA256, sum), Size: size}
	gate := make(chan struct{})
	r := newTestRegistry(t)
	r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
		if req.Header.Get("Range") == "" { // the first answer is cut off at three quarters
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
			_, _ = io.Copy(w, zeros(size/4*3))
			w.(http.Flusher).Flush()
			<-gate
			panic(http.ErrAbortHandler)
		}
		from := size/4*3 - 1
		w.Header().Set("Content-Range", "bytes "+strconv.FormatInt(from, 10)+"-"+
			strconv.FormatInt(size-1, 10)+"/"+strconv.FormatInt(size, 10))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.Copy(w, zeros(size-from))
		return true
	})
	c := newTimedCluster(t, r, Timings{Stall: time.Minute})
	owner := c.ranked(blobKey(desc).owners)[0]
	before, peak := heap(), uint64(0)
	middle, err := owner.router.Fetch(t.Context(), blobKey(desc), size/2)
	if err != nil {
		t.Fatal(err)
	}
	defer middle.Close()
	if _, err := io.ReadFull(middle, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	close(gate)
	got := size/2 + 1<<20
	for buffer := make([]byte, 1<<20); err == nil; {
		var n int
		n, err = middle.Read(buffer)
		if got += int64(n); got%(64<<20) < int64(n) {
			peak = max(peak, heap())
		}
	}
	if !errors.Is(err, io.EOF) || got != size {
		t.Errorf("got %d of %d bytes, %v", got, size, err)
	}
	if peak > before+32<<20 {
		t.Errorf("%d bytes of memory, %d before", peak, before)
	}
	eventually(t, "it is durable", func() bool { _, ok := owner.store.Stat(desc.Digest); return ok })
	if n := r.counts()["/v2/org/app/blobs/"+desc.Digest.String()]; n != 2 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

func heap() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapInuse
}

// Callers on all nodes learn of a blob when its upstream's header comes, not when its bytes do.
func TestFirstHeader(t *testing.T) {
	r := newTestRegistry(t)
	content := layer(1<<20, "layer")
	desc := r.pushBlob("org/app", "", content)
	header, gate := make(chan time.Time, 1), make(chan struct{})
	defer close(gate)
	r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		header <- time.Now()
		select {
		case <-gate:
		case <-req.Context().Done():
		}
		return true
	})
	c := newTestCluster(t, r)
	for i, n := range c.ranked(blobKey(desc).owners) {
		for _, offset := range []int64{0, 700 << 10} {
			stream, err := n.router.Fetch(t.Context(), blobKey(desc), offset)
			if err != nil {
				t.Fatal(err)
			}
			stream.Close()
		}
		if i == 0 {
			sent := <-header
			header <- sent
		}
	}
	t.Logf("the last header came %s after the upstream's, which has sent no byte", time.Since(<-header))
}

// A blob of unknown length is asked for once, bounded; its size is that of the manifest that names it, or is known at its
// end.
func TestBlobsOfUnknownLength(t *testing.T) {
	for _, c := range []struct {
		name   string
		size   int
		reason errdef.Reason
	}{
		{"small", 1000, ""}, {"large", 700 << 10, ""}, {"at the bound", testUnstated, ""},
		{"beyond the bound", testUnstated + 1, errdef.SizeMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newTestRegistry(t)
			content := layer(c.size, "layer")
			desc := r.pushBlob("org/app", "", content)
			r.setSpoil(unstated(content, nil, 0))
			cluster := newTestCluster(t, r)
			for _, n := range cluster.nodes {
				body, err := n.content(t.Context(), ContentBlob, desc.Digest)
				expect(t, string(n.id), err, c.reason)
				if err == nil && !bytes.Equal(body, content) {
					t.Errorf("got %d other bytes", len(body))
				}
				if c.reason != "" {
					return
				}
			}
			for _, twice := range counted(r.counts()) {
				t.Error(twice)
			}
		})
	}
}

// With the size from the manifest callers read along, and a truncated answer is seen and resumed.
func TestTheManifestKnowsTheLength(t *testing.T) {
	r := newTestRegistry(t)
	content := layer(2*testUnstated, "layer")
	_, blobs := r.pushImage("org/app", "v1", content)
	desc, gate := blobs[1], make(chan struct{})
	c := newTestCluster(t, r)
	if _, err := c.nodes[0].tag(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	if _, known := blobKey(desc).link(c.nodes[0].catalog.Snapshot()); !known {
		t.Fatal("the catalog does not know the layer: the test has lost its point")
	}
	r.setSpoil(unstated(content, gate, len(content)/2))
	stream, err := c.ranked(blobKey(desc).owners)[1].router.Fetch(t.Context(), blobKey(desc), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	first := make([]byte, len(content)/4)
	if _, err := io.ReadFull(stream, first); err != nil {
		t.Fatal(err)
	}
	close(gate)
	rest, err := io.ReadAll(stream)
	if err != nil || !bytes.Equal(append(first, rest...), content) {
		t.Errorf("got %d bytes, %v", len(first)+len(rest), err)
	}
	eventually(t, "its holder is known", func() bool {
		blob, _ := c.nodes[0].catalog.Snapshot().Blob(desc.Digest)
		return len(blob.Holders) > 0 && blob.Holders[0] != catalog.NodeID("")
	})
}

// unstated answers without a length. An answer that does not begin in the middle ends there, as if it were whole, once the
// gate opens; 0 is for no middle.
func unstated(content []byte, gate chan struct{}, middle int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, req *http.Request) bool {
		w.(http.Flusher).Flush()
		if middle == 0 {
			_, _ = w.Write(content)
			return true
		}
		_, _ = w.Write(content[:middle])
		w.(http.Flusher).Flush()
		<-gate
		if req.Header.Get("Range") != "" {
			_, _ = w.Write(content[middle:])
		}
		return true
	}
}
