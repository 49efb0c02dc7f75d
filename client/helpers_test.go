package client_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/internal/testnode"
)

const repositoryName = "up.test/org/app"

// largeLayer is content that is streamed, in many chunks; bytes differ from place to place.
func largeLayer() []byte {
	layer := make([]byte, 20*testnode.ChunkBytes+17)
	for i := range layer {
		layer[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return layer
}

// fixture is a cluster of test nodes with one signed image, v1.
type fixture struct {
	cluster *testnode.Cluster
	nodes   []*testnode.Node
	image   ocispec.Descriptor
	layer   []byte
}

func newFixture(t *testing.T, nodes int) *fixture {
	t.Helper()
	f := &fixture{cluster: testnode.NewCluster(), layer: largeLayer()}
	var err error
	if f.image, err = f.cluster.PushSigned(t.Context(), repositoryName, "v1", f.layer, 3); err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		f.nodes = append(f.nodes, testnode.Start(t, string(rune('a'+i)), f.cluster))
	}
	return f
}

func (f *fixture) addresses() []string {
	var addresses []string
	for _, node := range f.nodes {
		addresses = append(addresses, node.Address)
	}
	return addresses
}

// open returns the repository through a client of all nodes.
func (f *fixture) open(t *testing.T, opts ...client.Option) (*client.Client, *client.Repository) {
	t.Helper()
	c, err := client.New(f.addresses(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	repository, err := c.Repository(repositoryName)
	if err != nil {
		t.Fatal(err)
	}
	return c, repository
}

func (f *fixture) layerDescriptor() ocispec.Descriptor {
	return descriptorOf(ocispec.MediaTypeImageLayer, f.layer)
}

// calls counts the requests of a method on all nodes; all methods for "".
func (f *fixture) calls(method string) int {
	count := 0
	for _, node := range f.nodes {
		for _, call := range node.Calls() {
			if method == "" || call.Method == method {
				count++
			}
		}
	}
	return count
}

// each runs do for every node.
func (f *fixture) each(do func(*testnode.Node)) {
	for _, node := range f.nodes {
		do(node)
	}
}

func mustRead(t *testing.T, r io.ReadCloser, want []byte) {
	t.Helper()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes, %v, want %d bytes", len(got), err, len(want))
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}
