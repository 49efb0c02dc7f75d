package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/distribution"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/prefetch"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
	"github.com/ocistern/ocistern/internal/rpc"
)

// How long calls in flight may go on once the node stops. Peers get less: they resume elsewhere, and the leadership is
// handed over only after them.
const (
	drainCallers = 10 * time.Second
	drainPeers   = time.Second
	drainAdmin   = time.Second
)

// Limits of HTTP connections. A body may take as long as it makes progress, so there is no limit for a whole request.
const (
	headerTimeout  = 10 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
)

// serveAdmin comes first and ends last, so that /livez answers for as long as the process works.
func (n *Node) serveAdmin() {
	server := n.httpServer(admin(n.metrics, n.ready, n.warning, n.options.Logger))
	n.serve("admin API", n.listeners.admin, server.Serve)
	n.onClose("admin API", func(ctx context.Context) error { return stopHTTP(ctx, server, drainAdmin) })
}

func (n *Node) servePeers() error {
	server := rpc.NewPeerServer(rpc.PeerConfig{
		Member: n.cluster.Load(), Founder: n.cluster.Load(), Leader: n.cluster.Load(), Filler: n.filler, Store: n.store,
		Snapshots: localSnapshots{n.cluster.Load()}, Logger: n.options.Logger.With("part", "peer API"),
	})
	n.serve("peer API", n.listeners.peer, server.Serve)
	n.onClose("peer API", func(ctx context.Context) error { return stopGRPC(ctx, server, drainPeers) })
	return nil
}

// serveCallers starts the two protocols over the one set of use cases.
func (n *Node) serveCallers() error {
	answers := registry.New(registry.Config{
		Catalog: n.catalog, Store: n.store, Fill: n.router, Consensus: n.cluster.Load(), Node: n.config.Name,
		Policies: n.filler.Policies, Ready: n.caughtUp, Clock: time.Now, ManifestBytes: n.config.Limits.ManifestBytes,
	})
	steward := &registry.Steward{StewardConfig: registry.StewardConfig{
		Cache: answers, Policies: n.filler.Policies, Proposer: n.cluster.Load(), Followers: followers{n.cluster.Load()},
	}}
	ahead := prefetch.New(answers, prefetch.Config{
		Policies: n.filler.Policies, Mirrors: n.router.Mirrors, Listed: n.listed, Observer: n.metrics,
		Logger: n.options.Logger.With("part", "prefetch"),
	})
	n.onClose("prefetch", func(context.Context) error {
		ahead.Close()
		return nil
	})
	cache := registry.Observed(ahead, n.metrics.observe)
	calls := rpc.NewRegistryServer(rpc.RegistryConfig{
		Registry: cache, Known: registry.ObservedKnown(answers, n.metrics.observe),
		Status: n, Members: n.cluster.Load(), Snapshots: n, Steward: steward, Ready: n.ready, Logger: n.options.Logger.With("part", "client API"),
	})
	api := distribution.New(cache, n.options.Logger.With("part", "distribution API"), n.metrics.observeHTTP)
	web := n.httpServer(n.withWebhook(api, steward))
	n.serve("client API", n.listeners.grpc, calls.Serve)
	n.serve("distribution API", n.listeners.registry, web.Serve)
	n.onClose("APIs for callers", func(ctx context.Context) error {
		var both errgroup.Group
		both.Go(func() error { return stopHTTP(ctx, web, drainCallers) })
		both.Go(func() error { return stopGRPC(ctx, calls, drainCallers) })
		return both.Wait()
	})
	return nil
}

// listed tells whether the catalog has what an upstream said about the referrers of a subject.
func (n *Node) listed(tenant reference.Tenant, repository reference.Repository, subject digest.Digest) bool {
	list, _ := n.catalog.Snapshot().Referrers(tenant, repository, subject)
	return list.Freshness != catalog.Freshness{}
}

func (n *Node) httpServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(n.options.Logger.Handler(), slog.LevelWarn),
	}
}

// serve runs a server in the background. A node that cannot accept connections any more ends.
func (n *Node) serve(name string, listener net.Listener, serve func(net.Listener) error) {
	go func() {
		err := serve(listener)
		if err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, grpc.ErrServerStopped) {
			n.fail(errdef.Wrap(errdef.Internal, err, "the %s on %s has ended", name, listener.Addr()))
		}
	}()
}

// stopHTTP lets calls in flight end for a while, then cuts them.
func stopHTTP(ctx context.Context, server *http.Server, drain time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, drain)
	defer cancel()
	if err := server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return server.Close()
}

func stopGRPC(ctx context.Context, server *grpc.Server, drain time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, drain)
	defer cancel()
	unhurried := context.AfterFunc(ctx, server.Stop) // which makes GracefulStop return
	server.GracefulStop()
	unhurried()
	return nil
}
