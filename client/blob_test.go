package client_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/testnode"
)

func TestLargeBlobIsStreamed(t *testing.T) {
	f := newFixture(t, 1)
	_, repository := f.open(t)
	blob, err := repository.Fetch(t.Context(), f.layerDescriptor())
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(blob, f.layer); err != nil {
		t.Error(err)
	}
	if err := blob.Close(); err != nil {
		t.Error(err)
	}
}

// Every node dies after some bytes; the body goes on at the next one, from the byte reached: 5 streams for 20 chunks and
// a rest, 5 chunks at most from each.
func TestBlobResumesElsewhere(t *testing.T) {
	f := newFixture(t, 3)
	f.each(func(n *testnode.Node) { n.Intercept(testnode.DyingAfter(5 * testnode.ChunkBytes)) })
	_, repository := f.open(t)
	blob, err := repository.Fetch(t.Context(), f.layerDescriptor())
	if err != nil {
		t.Fatal(err)
	}
	mustRead(t, blob, f.layer)
	if calls := f.calls("FetchBlob"); calls != 5 {
		t.Errorf("%d streams, want 5", calls)
	}
}

func TestBlobStallsAndResumes(t *testing.T) {
	f := newFixture(t, 3)
	f.each(func(n *testnode.Node) { n.Intercept(testnode.StallingAfter(11 * testnode.ChunkBytes)) })
	_, repository := f.open(t, client.WithAttemptTimeout(time.Second))
	blob, err := repository.Fetch(t.Context(), f.layerDescriptor())
	if err != nil {
		t.Fatal(err)
	}
	mustRead(t, blob, f.layer)
	if calls := f.calls("FetchBlob"); calls < 2 {
		t.Errorf("%d streams, want another after the first stalled", calls)
	}
}

func TestBlobNodeKilledMidStream(t *testing.T) {
	f := newFixture(t, 2)
	killed := make(chan struct{})
	f.nodes[0].Intercept(func(_ context.Context, call testnode.Call) error {
		if call.Method == "FetchBlob" && call.Sent == 3*testnode.ChunkBytes {
			go func() { defer close(killed); f.nodes[0].Stop() }()
			<-killed
		}
		return nil
	})
	for range 8 { // until a client starts at the node that dies
		_, repository := f.open(t)
		blob, err := repository.Fetch(t.Context(), f.layerDescriptor())
		if err != nil {
			t.Fatal(err)
		}
		mustRead(t, blob, f.layer)
	}
}

// A large blob cannot be taken back: its last part is never handed out unless the whole is right (guarantee G4).
func TestWrongLargeBlob(t *testing.T) {
	for name, c := range map[string]struct {
		alter func([]byte) []byte
		want  error
	}{
		"last byte":  {testnode.FlipLast, client.ErrDigestMismatch},
		"first byte": {func(b []byte) []byte { b[0] ^= 1; return b }, client.ErrDigestMismatch},
		"too long":   {func(b []byte) []byte { return append(b, '!') }, client.ErrSizeMismatch},
		"too short":  {func(b []byte) []byte { return b[:len(b)-1] }, client.ErrSizeMismatch},
	} {
		f := newFixture(t, 2)
		f.each(func(n *testnode.Node) { n.Alter(c.alter) })
		_, repository := f.open(t)
		blob, err := repository.Fetch(t.Context(), f.layerDescriptor())
		if err != nil {
			t.Fatal(name, err)
		}
		got, err := io.ReadAll(blob)
		if !errors.Is(err, c.want) || len(got) >= len(f.layer) {
			t.Errorf("%s: read %d of %d bytes, %v; want %v and less", name, len(got), len(f.layer), err, c.want)
		}
		if _, again := blob.Read(make([]byte, 1)); !errors.Is(again, c.want) {
			t.Errorf("%s: second read after the failure: %v", name, again)
		}
		if err := blob.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestBlobSizeOfDescriptorIsChecked(t *testing.T) {
	f := newFixture(t, 1)
	_, repository := f.open(t)
	wrong := f.layerDescriptor()
	wrong.Size++
	if _, err := repository.Fetch(t.Context(), wrong); !errors.Is(err, client.ErrSizeMismatch) {
		t.Errorf("too large: %v", err)
	}
	wrong.Size = 10 // now a small one
	if _, err := repository.Fetch(t.Context(), wrong); !errors.Is(err, client.ErrSizeMismatch) {
		t.Errorf("too small: %v", err)
	}
}

func TestBlobAllNodesDie(t *testing.T) {
	f := newFixture(t, 2)
	_, repository := f.open(t)
	blob, err := repository.Fetch(t.Context(), f.layerDescriptor())
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	f.each(func(n *testnode.Node) { n.Intercept(testnode.Failing(errdef.Unavailable)); n.Stop() })
	if _, err := io.ReadAll(blob); err != nil && !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("got %v; want the whole blob, when it was on its way, or %v", err, client.ErrUnavailable)
	}
}

func TestBlobCancelAndClose(t *testing.T) {
	f := newFixture(t, 1)
	f.nodes[0].Intercept(testnode.StallingAfter(testnode.ChunkBytes))
	_, repository := f.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	blob, err := repository.Fetch(ctx, f.layerDescriptor())
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if _, err := io.ReadFull(blob, make([]byte, testnode.ChunkBytes)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := blob.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("read after the context was cancelled: %v", err)
	}
	closed, err := repository.Fetch(t.Context(), f.layerDescriptor())
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Error(err)
	}
	if _, err := closed.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("read after close: %v", err)
	}
}

// A small blob is collected in memory, but no more of it than its descriptor says: a node that goes on is not listened to.
func TestEndlessSmallBlob(t *testing.T) {
	f := newFixture(t, 1)
	small := []byte("small")
	if _, err := f.cluster.PushSigned(t.Context(), repositoryName, "small", small, 0); err != nil {
		t.Fatal(err)
	}
	f.nodes[0].Alter(func(b []byte) []byte { return append(b, make([]byte, 2*testnode.ChunkBytes)...) })
	f.nodes[0].Intercept(testnode.StallingAfter(testnode.ChunkBytes))
	_, repository := f.open(t, client.WithAttemptTimeout(time.Minute))
	_, err := repository.Fetch(t.Context(), descriptorOf(ocispec.MediaTypeImageLayer, small))
	if !errors.Is(err, client.ErrSizeMismatch) {
		t.Errorf("got %v", err)
	}
}
