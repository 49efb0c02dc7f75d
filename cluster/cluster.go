// Package cluster makes this node a member: it keeps the node's identity, runs Raft over TCP and gossip over
// memberlist, bootstraps a cluster exactly once, adds and replaces members, and submits commands from any node.
//
// It is not the state machine (package fsm), holds no content, and speaks no gRPC: what it asks other nodes goes
// through Peers, which internal/rpc implements. internal/node opens one Cluster per process. DESIGN.md holds the
// argument why two clusters can never come out of one set of nodes, and why replacing a node that lost its disk is
// safe.
package cluster

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Cluster is this node's membership. All exported methods are safe for concurrent use.
type Cluster struct {
	config    Config // with defaults and with the addresses that were really bound
	identity  *identity
	storage   *storage
	transport *transport
	raft      *raft.Raft
	gossip    *gossip
	catalog   *catalog.Catalog
	machine   Machine
	peers     Peers
	logger    *slog.Logger

	leadership *signal // the known leader changed
	progress   progress

	office
	life
}

// office is what this node does for the others while it leads.
type office struct {
	reads     *reading
	orders    chan order // of operators, for steer
	transfers transfers
	writes    *queue                   // of ApplyLocal
	restore   atomic.Pointer[lastPart] // the last one that was begun
	raising   sync.Mutex               // held while the feature level rises, or must not
	heldBack  atomic.Pointer[string]   // what keeps the level down, or a node out; for people
}

// Machine is what Raft drives: package fsm's, which applies to the catalog.
type Machine interface {
	raft.BatchingFSM
	// HashAt returns the running hash at an index that the catalog has reached, false when it is not known any more.
	HashAt(index catalog.LogIndex) (Hash, bool)
	// RecordLevel sets what is called with a feature level before its first entry is applied.
	RecordLevel(record func(catalog.FeatureLevel) error)
}

// life is how long a node runs.
type life struct {
	lifetime context.Context // ends when Shutdown begins
	workers  sync.WaitGroup
	closing  closing
}

// progress is how far this node has come since it started.
type progress struct {
	ready   atomic.Bool
	waiting atomic.Pointer[string]   // what it waits for before it belongs to a cluster; for people
	noticed atomic.Pointer[[]string] // what was logged of Notices
	// compared is the last comparison of hashes, nil before the first.
	compared atomic.Pointer[Comparison]
}

// closing ends lifetime, and makes Shutdown happen once.
type closing struct {
	end   context.CancelFunc
	once  sync.Once
	begun atomic.Bool // Shutdown was called: no restore begins any more
	err   error       // written inside once
}

// Open starts this node from its data directory and begins to look for its cluster. It returns before the node belongs
// to one: Ready tells. machine must apply to cat, and peers must be able to answer as soon as Open is called.
//
// It fails with reason CONFIG_INVALID; ADDRESS_IN_USE, naming the setting; CLUSTER_MISMATCH when the data directory
// belongs to another cluster than the nodes of Config.Join; STORAGE_FAILED when another process uses the data
// directory or the disk fails; VERSION_TOO_OLD when a newer build ran here whose entries this one does not understand;
// CONTENT_CORRUPT when parts of the data directory do not fit each other; REMOVED or DIVERGED when this node's id was
// retired. A failed Open leaves nothing running.
func Open(cfg Config, machine Machine, cat *catalog.Catalog, peers Peers, logger *slog.Logger) (*Cluster, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		config: cfg, catalog: cat, machine: machine, peers: peers, logger: logger, leadership: newSignal(),
		office: office{reads: newReading(), writes: newQueue(), orders: make(chan order)},
	}
	c.lifetime, c.closing.end = context.WithCancel(context.Background())
	c.await("starting")
	if err := c.open(); err != nil {
		return nil, errors.Join(err, c.abandon())
	}
	c.workers.Go(c.steer)
	c.workers.Go(c.pack)
	c.workers.Go(func() { c.transport.commits.serve(c.lifetime) })
	c.workers.Go(func() { c.reads.proofs.serve(c.lifetime, c.prove) })
	c.workers.Go(func() { c.reads.asks.serve(c.lifetime, c.askLeader) })
	c.workers.Go(c.gossip.rejoin)
	c.workers.Go(c.watchHashes)
	c.workers.Go(c.watchReserve)
	return c, nil
}

func (c *Cluster) open() error {
	var err error
	if c.storage, c.identity, err = openState(c.config, c.logger); err != nil {
		return err
	}
	if c.transport, err = openTransport(&c.config, c.identity, c.logger); err != nil {
		return err
	}
	if err := c.openRaft(); err != nil {
		return err
	}
	if c.gossip, err = openGossip(c.lifetime, &c.config, c.identity, c.logger); err != nil {
		return err
	}
	return c.meet()
}

// openRaft starts Raft on what the disk holds. An empty node runs it too: it neither votes nor starts elections before
// the handshake of the transport has made it a member.
func (c *Cluster) openRaft() error {
	s := c.storage
	c.machine.RecordLevel(c.identity.reach)
	armed := &atomic.Bool{}
	var running *raft.Raft
	err := guarded(func() (err error) {
		machine := inTurn{BatchingFSM: c.machine, turn: s.turn, armed: armed, fatal: c.config.Fatal}
		running, err = raft.NewRaft(c.raftConfig(), machine, endingLogs{s.logs, armed}, endingStable{s.stable, armed},
			s.snapshots, c.transport)
		return err
	})
	if err != nil { // the disk is sound: it is a snapshot that this build does not understand
		return errdef.Wrap(errdef.Internal, err, "raft cannot start from %s", c.config.DataDir)
	}
	armed.Store(true)
	c.raft = running
	follows := followersOf(running)
	c.transport.follows.Store(&follows)
	go c.transport.incoming.serve(&receiver{state: running, snapshot: s.newest, turn: s.turn}) // until the transport is closed
	told := c.catalog.Snapshot().ClusterID()
	if own := c.identity.current().ClusterID; told != "" && told != own {
		return errdef.New(errdef.ClusterMismatch, "the catalog in %s is of cluster %s, its identity of cluster %q",
			c.config.DataDir, told, own).WithRemedy("restore node.json, or start with an empty data directory")
	}
	changes := make(chan raft.Observation, 1) // one is enough: it says that something changed, not what
	c.raft.RegisterObserver(raft.NewObserver(changes, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	}))
	c.workers.Go(func() { relay(c.lifetime, changes, c.leadership) })
	return nil
}

func (c *Cluster) raftConfig() *raft.Config {
	t := c.config.Timings
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(c.identity.current().ID)
	conf.HeartbeatTimeout, conf.ElectionTimeout = t.Heartbeat, t.Election
	conf.LeaderLeaseTimeout, conf.CommitTimeout = t.Lease, t.Commit
	conf.SnapshotInterval, conf.SnapshotThreshold = t.SnapshotInterval, t.SnapshotThreshold
	conf.TrailingLogs = t.TrailingLogs
	conf.ShutdownOnRemove = false // a node that was removed stays up and says so
	conf.NoLegacyTelemetry = true
	conf.Logger = newHCLogger(c.logger, "raft")
	return conf
}

// Self returns this node's id.
func (c *Cluster) Self() catalog.NodeID { return c.identity.current().ID }

// ClusterID returns the id of the cluster this node is a member of, empty until it is.
func (c *Cluster) ClusterID() string { return c.identity.current().ClusterID }

// Addresses returns what this node tells the others about itself.
func (c *Cluster) Addresses() Addresses { return c.config.Advertise }
