package fill

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

const (
	testUnstated   = 1 << 20 // bytes
	testTenant     = reference.DefaultTenant
	testRepository = reference.Repository("up.test/org/app")
)

// testCluster is three nodes in one process: real catalogs, stores, Fillers and Routers, and a log without Raft that
// applies every command to all catalogs in one order.
type testCluster struct {
	*testRegistry
	nodes    []*testNode
	observer *tally
	timings  Timings

	// mu guards the fields below.
	mu        sync.Mutex
	index     catalog.LogIndex
	noQuorum  bool
	elections int // commands to come whose outcome a change of leader leaves unknown
	dead      map[catalog.NodeID]bool
	unheard   catalog.NodeID  // nothing that it publishes comes to the log
	held      []catalog.Entry // while lagging: committed, not applied
	lagging   bool
	log       []byte          // every command, as it is in the log
	early     []digest.Digest // published before they were durable on their holder
}

// testNode is one node, and what its Filler and Router see of the others.
type testNode struct {
	*testCluster
	id      catalog.NodeID
	dir     string // of the store
	catalog *catalog.Catalog
	store   *blobstore.Store
	filler  *Filler
	router  *Router
	// heldBytes is what this node has read from holders.
	heldBytes atomic.Int64
}

func newTestCluster(t *testing.T, r *testRegistry) *testCluster {
	return newTimedCluster(t, r, Timings{})
}

func newTimedCluster(t *testing.T, r *testRegistry, timings Timings) *testCluster {
	t.Helper()
	c := &testCluster{testRegistry: r, observer: newTally(), dead: map[catalog.NodeID]bool{}, timings: timings}
	for _, id := range []catalog.NodeID{"n1", "n2", "n3"} {
		n := &testNode{testCluster: c, id: id, catalog: catalog.New(), dir: t.TempDir()}
		n.start(t)
		c.nodes = append(c.nodes, n)
		t.Cleanup(func() { n.stop(t) })
	}
	t.Cleanup(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.early) > 0 {
			t.Errorf("published before it was durable: %v", c.early)
		}
	})
	return c
}

// start opens the node's store and makes its Filler and Router.
func (n *testNode) start(t *testing.T) {
	t.Helper()
	var err error
	if n.store, err = blobstore.Open(n.dir, blobstore.Options{MemoryBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	n.filler, err = NewFiller(FillerConfig{
		Catalog: n.catalog, Store: n.store, Proposer: n, Holders: n, Self: n.id, Upstreams: []Upstream{n.upstream()},
		ManifestBytes: testLimit, Clock: time.Now, Observer: n.observer, Timings: n.timings,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	n.filler.unstated = testUnstated
	n.router = NewRouter(RouterConfig{
		Filler: n.filler, Members: n, Peers: n, Announcer: n, Logger: slog.New(slog.DiscardHandler),
	})
}

func (n *testNode) stop(t *testing.T) {
	n.router.Close()
	n.filler.Close()
	if err := n.store.Close(); err != nil {
		t.Error(err)
	}
}

// undurable returns what a command publishes although its holder could lose it in a crash (guarantee G3). Each command of
// each test of this package is looked at.
func (c *testCluster) undurable(command catalog.Command) (early []digest.Digest) {
	published, ok := command.(catalog.Publish)
	if !ok {
		return nil
	}
	for _, blob := range published.Blobs {
		if _, durable := c.node(published.Holder).store.Stat(blob.Digest); !durable {
			early = append(early, blob.Digest)
		}
	}
	return early
}

// Apply implements Proposer, by way of the log's own format.
func (c *testCluster) Apply(_ context.Context, command catalog.Command) (catalog.LogIndex, error) {
	encoded, err := fsm.Encode(command)
	if err != nil {
		return 0, err
	}
	if command, err = fsm.Decode(encoded); err != nil {
		return 0, err
	}
	early := c.undurable(command)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.early = append(c.early, early...)
	c.log = append(c.log, encoded...)
	if c.elections > 0 {
		c.elections--
		return 0, errdef.New(errdef.OutcomeUnknown, "the leader changed")
	}
	if published, ok := command.(catalog.Publish); c.noQuorum || ok && published.Holder == c.unheard {
		return 0, errdef.New(errdef.NoQuorum, "the test has taken the quorum away")
	}
	c.index++
	c.held = append(c.held, catalog.Entry{Index: c.index, Command: command})
	if c.lagging {
		return c.index, nil
	}
	return c.index, c.applyHeld()
}

// applyHeld applies what is committed. The caller holds mu.
func (c *testCluster) applyHeld() (err error) {
	for _, entry := range c.held {
		for _, n := range c.nodes {
			err = n.catalog.Apply(entry)[0].Err
		}
	}
	c.held = nil
	return err
}

func (c *testCluster) set(change func(*testCluster)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}

func (c *testCluster) alive(id catalog.NodeID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead[id] {
		return errdef.New(errdef.Unavailable, "node %s is dead", id)
	}
	return nil
}

func (c *testCluster) node(id catalog.NodeID) *testNode {
	for _, n := range c.nodes {
		if n.id == id {
			return n
		}
	}
	panic("no node " + id)
}

// ranked returns the nodes by their claim on a key.
func (c *testCluster) ranked(owners func([]catalog.NodeID) []catalog.NodeID) []*testNode {
	var nodes []*testNode
	for _, id := range owners(c.nodes[0].Living()) {
		nodes = append(nodes, c.node(id))
	}
	return nodes
}

// flying counts the flights that have not ended.
func (c *testCluster) flying() (running int) {
	for _, n := range c.nodes {
		running += n.router.Running()
	}
	return running
}

// Self implements Members.
func (n *testNode) Self() catalog.NodeID { return n.id }

// Living implements Members. Gossip is slow: it does not notice that a node is dead.
func (n *testNode) Living() []catalog.NodeID { return []catalog.NodeID{"n1", "n2", "n3"} }

// Announce implements Announcer.
func (n *testNode) Announce(dgst digest.Digest) {
	_, _ = n.Apply(context.Background(), catalog.AddHolder{Node: n.id, Digests: []digest.Digest{dgst}})
}

// Refresh implements Peers.
func (n *testNode) Refresh(
	ctx context.Context, node catalog.NodeID, key Key, seen catalog.LogIndex,
) (catalog.LogIndex, error) {
	if err := n.alive(node); err != nil {
		return 0, err
	}
	index, err := n.node(node).filler.Refresh(ctx, key, seen)
	if failed := n.alive(node); failed != nil {
		return 0, failed
	}
	return index, err
}

// FetchContent implements Peers.
func (n *testNode) FetchContent(
	ctx context.Context, node catalog.NodeID, key ContentKey, offset int64,
) (*Stream, error) {
	if err := n.alive(node); err != nil {
		return nil, err
	}
	stream, err := n.node(node).filler.Fetch(ctx, key, offset)
	if err == nil {
		stream.ReadCloser = &mortalReader{stream.ReadCloser, n.testCluster, node}
	}
	return stream, err
}

// FetchHeld implements Holders.
func (n *testNode) FetchHeld(
	_ context.Context, node catalog.NodeID, dgst digest.Digest, offset int64,
) (io.ReadCloser, int64, error) {
	if err := n.alive(node); err != nil {
		return nil, 0, err
	}
	content, err := n.node(node).store.Open(dgst)
	if err != nil {
		return nil, 0, err
	}
	if _, err := content.Seek(offset, io.SeekStart); err != nil {
		return nil, 0, err
	}
	counted := struct {
		io.Reader
		io.Closer
	}{io.TeeReader(content, countingWriter{&n.heldBytes}), content}
	return &mortalReader{counted, n.testCluster, node}, content.Size(), nil
}

type countingWriter struct{ total *atomic.Int64 }

func (w countingWriter) Write(p []byte) (int, error) {
	w.total.Add(int64(len(p)))
	return len(p), nil
}

// mortalReader fails when the node that it reads from dies.
type mortalReader struct {
	io.ReadCloser
	cluster *testCluster
	node    catalog.NodeID
}

func (r *mortalReader) Read(p []byte) (int, error) {
	if err := r.cluster.alive(r.node); err != nil {
		return 0, err
	}
	n, err := r.ReadCloser.Read(p[:min(len(p), 4<<10)])
	if failed := r.cluster.alive(r.node); failed != nil {
		return 0, failed
	}
	return n, err
}

// The methods below are a small package registry: answer from the catalog and the store, else fill.
