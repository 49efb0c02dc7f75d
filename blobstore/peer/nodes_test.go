package peer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/blobstore/storetest"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// nodes is a source of the stores of other nodes, each with the way in which it misbehaves.
type nodes struct {
	stores map[catalog.NodeID]*blobstore.Store

	mu     sync.Mutex // guards the fields below
	faults map[catalog.NodeID]fault
	asked  []request
}

func (n *nodes) misbehave(node catalog.NodeID, how fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults[node] = how
}

func (n *nodes) requests() []request {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.asked)
}

type request struct {
	node   catalog.NodeID
	offset int64
}

// fault is how a node misbehaves. The zero fault is none.
type fault struct {
	refuses    error // every request fails
	diesAfter  int64 // bytes, when above zero
	silent     bool  // gives nothing after diesAfter bytes instead of dying
	slow       bool  // gives 500 bytes every 9 seconds
	wrong      bool  // every byte is another one
	wrongSize  int64 // added to the announced size
	endsBefore int64 // bytes that are missing at the end
}

func (n *nodes) FetchHeld(ctx context.Context, node catalog.NodeID, dgst digest.Digest, offset int64) (io.ReadCloser, int64, error) {
	n.mu.Lock()
	n.asked = append(n.asked, request{node, offset})
	fault := n.faults[node]
	n.mu.Unlock()
	if fault.refuses != nil {
		return nil, 0, fault.refuses
	}
	content, err := n.stores[node].Open(dgst)
	if err != nil {
		return nil, 0, err
	}
	defer content.Close()
	data, err := io.ReadAll(content)
	if err != nil {
		return nil, 0, err
	}
	size := int64(len(data)) + fault.wrongSize
	data = bytes.Clone(data[offset : int64(len(data))-fault.endsBefore])
	for i := range data {
		if fault.wrong {
			data[i] ^= 0xff
		}
	}
	if fault.slow {
		return io.NopCloser(slowly{ctx, bytes.NewReader(data)}), size, nil
	}
	if fault.diesAfter == 0 && !fault.silent {
		return io.NopCloser(bytes.NewReader(data)), size, nil
	}
	given := bytes.NewReader(data[:min(fault.diesAfter, int64(len(data)))])
	return io.NopCloser(io.MultiReader(given, ending{ctx, fault.silent})), size, nil
}

type slowly struct {
	ctx context.Context
	io.Reader
}

func (s slowly) Read(p []byte) (int, error) {
	select {
	case <-time.After(9 * time.Second):
		return s.Reader.Read(p[:min(len(p), 500)])
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
}

// ending is how a stream ends that breaks.
type ending struct {
	ctx    context.Context
	silent bool
}

func (e ending) Read([]byte) (int, error) {
	if e.silent {
		<-e.ctx.Done()
		return 0, e.ctx.Err()
	}
	return 0, errors.New("connection reset")
}

func openStore(t testing.TB, dir string) *blobstore.Store {
	t.Helper()
	store, err := blobstore.Open(dir, blobstore.Options{MemoryBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// cluster is a catalog that is changed as Raft would, and the stores of some nodes.
type cluster struct {
	*nodes
	catalog *catalog.Catalog
	applied func([]catalog.Entry)

	writing  sync.Mutex // guards the fields below
	index    catalog.LogIndex
	commands []catalog.Command
	refuse   int // as many proposals fail for want of a quorum
}

func newCluster(t testing.TB, members ...catalog.NodeID) *cluster {
	t.Helper()
	c := &cluster{
		nodes:   &nodes{stores: map[catalog.NodeID]*blobstore.Store{}, faults: map[catalog.NodeID]fault{}},
		catalog: catalog.New(),
	}
	for _, member := range members {
		c.stores[member] = openStore(t, t.TempDir())
	}
	return c
}

// Apply implements peer.Proposer.
func (c *cluster) Apply(_ context.Context, command catalog.Command) (catalog.LogIndex, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.refuse > 0 {
		c.refuse--
		return 0, errdef.New(errdef.NoQuorum, "no leader")
	}
	c.index++
	c.commands = append(c.commands, command)
	entry := catalog.Entry{Index: c.index, Command: command}
	err := c.catalog.Apply(entry)[0].Err
	if err == nil && c.applied != nil {
		c.applied([]catalog.Entry{entry})
	}
	return c.index, err
}

// publish puts content on a node and publishes it.
func (c *cluster) publish(t testing.TB, node catalog.NodeID, data []byte) digest.Digest {
	t.Helper()
	desc := storetest.Describe(digest.SHA256, data)
	storetest.Put(t, c.stores[node], desc, data)
	command := catalog.Publish{
		Tenant: "default", Repository: "example.com/app", Source: catalog.SourceUpstream, Holder: node,
	}
	command.Blobs = append(command.Blobs, desc)
	if _, err := c.Apply(t.Context(), command); err != nil {
		t.Fatal(err)
	}
	return desc.Digest
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
