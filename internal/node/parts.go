package node

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/blobstore/peer"
	"github.com/ocistern/ocistern/cluster"
	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/fill"
	"github.com/ocistern/ocistern/internal/policy"
	"github.com/ocistern/ocistern/internal/rpc"
)

// contentDir is the directory of the blobstore in the data directory; package cluster keeps its own files beside it.
const contentDir = "content"

func (n *Node) listen() error {
	var err error
	if n.listeners, err = listen(n.config.Listen); err != nil {
		return err
	}
	n.onClose("listeners", func(context.Context) error { return n.listeners.close() })
	n.serveAdmin()
	return nil
}

func (n *Node) openStore() error {
	if err := prepareDataDir(n.config.DataDir); err != nil {
		return err
	}
	var err error
	n.store, err = blobstore.Open(filepath.Join(n.config.DataDir, contentDir), blobstore.Options{
		MemoryBytes: n.config.Limits.MemoryBytes, FreeBytes: n.config.Limits.FreeBytes, Logger: n.options.Logger.With("part", "blobstore"),
		Lost: n.lost,
	})
	if err != nil {
		return err
	}
	n.onClose("content", func(context.Context) error { return n.store.Close() })
	return nil
}

func (n *Node) openCluster() error {
	n.catalog = catalog.New()
	hurry, hasten := context.WithCancel(context.Background())
	machine := fsm.New(n.catalog, fsm.Options{
		Stop: n.fail, Applied: n.applied, Restored: n.restored, Hurry: hurry.Done(),
	})
	n.peers = rpc.NewPeerClient(n.clusterID)
	n.onClose("connections to peers", func(context.Context) error { return n.peers.Close() })
	opened, err := cluster.Open(cluster.Config{
		DataDir: n.config.DataDir, Name: n.config.Name, Expect: n.config.Cluster.Expect, Join: n.config.Cluster.Join,
		Listen: cluster.Addresses{Raft: n.config.Listen.Raft, Gossip: n.config.Listen.Gossip}, Fatal: n.fail,
		ReserveBytes: n.config.Limits.ReserveBytes,
		FeatureLevel: catalog.FeatureLevel(n.config.Cluster.FeatureLevel),
		Advertise:    advertise(n.config, n.listeners), DeadVoterAfter: n.config.Cluster.DeadVoterAfter,
	}, machine, n.catalog, n.peers, n.options.Logger.With("part", "cluster"))
	if err != nil {
		hasten()
		return err
	}
	n.cluster.Store(opened)
	n.onClose("cluster", func(ctx context.Context) error {
		hasten()
		return opened.Shutdown(ctx)
	})
	n.metrics.watch(n)
	return nil
}

// applied tells the replicator of new content. Entries that are applied before it exists are found by its scan.
func (n *Node) applied(entries []catalog.Entry) {
	if r := n.replicator.Load(); r != nil {
		r.Notice(entries)
	}
}

// restored tells the replicator that the catalog was replaced, which happens to a node that was away for long.
func (n *Node) restored() {
	if r := n.replicator.Load(); r != nil {
		r.Rescan()
	}
}

// lost tells the replicator of content that this node has lost. What is lost before it exists, its scan finds.
func (n *Node) lost(dgst digest.Digest) {
	if r := n.replicator.Load(); r != nil {
		r.Recheck(dgst)
	}
}

// openReplication starts what keeps small content on this node, and the catalog's word on its content true.
func (n *Node) openReplication() error {
	members, logger := n.cluster.Load(), n.options.Logger.With("part", "replication")
	n.announcer = peer.NewAnnouncer(members.Self(), n.store, members, logger)
	replicator := peer.NewReplicator(peer.ReplicatorConfig{
		Self: members.Self(), Catalog: n.catalog, Store: n.store, Source: n.nodePeers(), Announcer: n.announcer,
		Logger: logger,
	})
	n.replicator.Store(replicator)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { n.announcer.Run(ctx) })
	running.Go(func() { replicator.Run(ctx) })
	running.Go(func() { n.makeRoom(ctx) })
	n.onClose("replication", func(context.Context) error {
		cancel()
		running.Wait()
		return nil
	})
	return nil
}

// roomInterval is how often the free space is looked at.
const roomInterval = 5 * time.Second

// makeRoom gives content up, until ctx ends, where others fill the disk: the log needs it more.
func (n *Node) makeRoom(ctx context.Context) {
	ticker := time.NewTicker(roomInterval)
	defer ticker.Stop()
	for {
		if err := n.store.MakeRoom(); err != nil {
			n.options.Logger.Error("no room can be made on the disk", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// nodePeers finds peers by node id, as the members of the cluster have it.
func (n *Node) nodePeers() *rpc.NodePeers {
	members := n.cluster.Load()
	return rpc.NewNodePeers(n.peers, func(id catalog.NodeID) (string, bool) {
		member, found := members.Member(id)
		return member.Addresses.Peer, found
	})
}

func (n *Node) openFill() error {
	members, logger := n.cluster.Load(), n.options.Logger.With("part", "fill")
	policies, err := policy.NewSet(n.config.Policies)
	if err != nil {
		return err
	}
	n.filler, err = fill.NewFiller(fill.FillerConfig{
		Catalog: n.catalog, Store: n.store, Proposer: members, Holders: n.nodePeers(), Self: members.Self(),
		Upstreams: upstreamsOf(n.config), Policies: policies, ManifestBytes: n.config.Limits.ManifestBytes,
		Clock: time.Now, Logger: logger, Observer: n.metrics, Nodes: func() int { return len(members.Living()) },
	})
	if err != nil {
		return err
	}
	n.router = fill.NewRouter(fill.RouterConfig{
		Filler: n.filler, Members: members, Peers: n.nodePeers(), Announcer: n.announcer, Logger: logger,
	})
	n.metrics.watchFills(n.router)
	n.onClose("fill", func(context.Context) error {
		n.router.Close()
		n.filler.Close()
		return nil
	})
	return nil
}
