// Package node is the composition root: it builds one node from its configuration and takes it down again. Data travels
// one way, from the protocols over the use cases to catalog, content and cluster; this is the only package that sees
// all of them.
//
// It decides nothing about artifacts. It owns what belongs to no other package: listeners, the data directory, health,
// metrics, status, and the order of start and stop. `ocistern serve` calls it.
package node

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/blobstore/peer"
	"github.com/ocistern/ocistern/cluster"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/config"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/fill"
	"github.com/ocistern/ocistern/internal/rpc"
)

// How long a stop may take. Orchestrators kill after 30 s by default. A node that has failed hurries: the sooner it is
// gone, the sooner another one leads.
const (
	stopTimeout = 20 * time.Second
	failTimeout = 3 * time.Second
	exitMargin  = time.Second // for parts that do not watch the time
)

// Options is what a node needs beside its configuration.
type Options struct {
	Version string
	Logger  *slog.Logger
}

// Node is one running node.
type Node struct {
	config  config.Config
	options Options
	metrics *metrics

	listeners *listeners
	catalog   *catalog.Catalog
	store     *blobstore.Store
	peers     *rpc.PeerClient
	announcer *peer.Announcer
	filler    *fill.Filler
	router    *fill.Router

	// cluster and replicator are called back by parts that exist before them, so they are nil until they are open.
	cluster    atomic.Pointer[cluster.Cluster]
	replicator atomic.Pointer[peer.Replicator]

	stopping atomic.Bool
	life     life
}

// life is how a node ends.
type life struct {
	fatal   chan error // the first failure beyond repair; buffered
	closers []closer   // of what is open, in the order of opening
}

type closer struct {
	name  string
	close func(context.Context) error
}

// Start opens everything, lowest part first, and begins to serve. It returns before the node is ready: /readyz tells.
// An error leaves nothing open; a port in use (reason ADDRESS_IN_USE) or a wrong setting (CONFIG_INVALID) leaves nothing
// written either.
func Start(cfg config.Config, options Options) (*Node, error) {
	n := &Node{
		config: cfg, options: options, metrics: newMetrics(options.Version, cfg.Upstreams),
		life: life{fatal: make(chan error, 1)},
	}
	for _, open := range []func() error{
		n.listen, n.openCollector, n.openStore, n.openCluster, n.openReplication, n.openFill, n.servePeers, n.serveCallers,
	} {
		if err := open(); err != nil {
			ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
			defer cancel()
			return nil, errors.Join(err, n.close(ctx))
		}
	}
	n.options.Logger.Info("node started", "version", options.Version, "id", n.cluster.Load().Self(),
		"registry", n.listeners.registry.Addr().String(), "grpc", n.listeners.grpc.Addr().String(),
		"admin", n.listeners.admin.Addr().String(), "data-dir", cfg.DataDir)
	return n, nil
}

// Run serves until ctx ends, or until the node cannot go on, and then stops the node. Only the latter is an error. It
// returns in bounded time even when a part does not stop, as with a disk that hangs; the process must then exit.
func (n *Node) Run(ctx context.Context) error {
	var failure error
	timeout := stopTimeout
	select {
	case <-ctx.Done():
	case failure = <-n.life.fatal:
		timeout = failTimeout
	}
	n.stopping.Store(true)
	n.options.Logger.Info("node is stopping", "failed", failure != nil)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- n.close(ctx) }()
	select {
	case err := <-closed:
		return errors.Join(failure, err)
	case <-time.After(timeout + exitMargin):
		return errors.Join(failure, errdef.New(errdef.Internal, "the node did not stop within %s", timeout+exitMargin))
	}
}

// fail ends Run. Only the first failure counts: later ones follow from it.
func (n *Node) fail(err error) {
	select {
	case n.life.fatal <- err:
	default:
	}
}

// onClose registers how to close what was just opened.
func (n *Node) onClose(name string, closeIt func(context.Context) error) {
	n.life.closers = append(n.life.closers, closer{name: name, close: closeIt})
}

// close closes in reverse order and goes on after a failure.
func (n *Node) close(ctx context.Context) error {
	var failures []error
	for len(n.life.closers) > 0 {
		last := n.life.closers[len(n.life.closers)-1]
		n.life.closers = n.life.closers[:len(n.life.closers)-1]
		if err := last.close(ctx); err != nil {
			failures = append(failures, errdef.Wrap(errdef.ReasonOf(err), err, "cannot close %s", last.name))
		}
	}
	return errors.Join(failures...)
}

// ready tells whether callers may be sent here.
func (n *Node) ready() error {
	if n.stopping.Load() {
		return errdef.New(errdef.NotReady, "this node is stopping")
	}
	return n.caughtUp()
}

// warning says what is wrong with a node that is ready all the same; empty when nothing is.
func (n *Node) warning() string {
	c, store := n.cluster.Load(), n.store
	if c == nil || store == nil {
		return ""
	}
	_, full, err := store.Space()
	switch {
	case err != nil:
		return ", but " + err.Error()
	case c.ReserveGivenUp():
		return ", but the disk is full, and the raft log has the last of it: free space or enlarge the volume"
	case full:
		return ", but the disk is nearly full: new content is answered, and not kept"
	}
	return ""
}

// caughtUp tells whether this node may answer those who came. A node that is stopping still does.
func (n *Node) caughtUp() error {
	c := n.cluster.Load()
	if c == nil {
		return errdef.New(errdef.NotReady, "this node is starting")
	}
	return c.Ready()
}

// clusterID returns the id of this node's cluster, empty until it is known.
func (n *Node) clusterID() string {
	if c := n.cluster.Load(); c != nil {
		return c.ClusterID()
	}
	return ""
}
