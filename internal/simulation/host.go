package simulation

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/ocistern/ocistern/cluster"
	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// host is a machine: it outlives the runs of the node on it.
type host struct {
	fleet *fleet
	name  string
	dir   string // for node.json; everything else is on disk
	disk  *disk
	pace  float64 // of its clock: all its time-outs are multiplied by it

	busy    chan struct{} // capacity 1: held by who starts, stops or wipes
	ip      atomic.Pointer[string]
	running atomic.Pointer[node]
}

// node is one run of a node.
type node struct {
	cluster  *cluster.Cluster
	catalog  *catalog.Catalog
	endpoint *endpoint
	dead     chan struct{} // closed by a crash
}

const (
	raftPort   = 7000
	gossipPort = 7001
	peerPort   = 7002
)

// address is where the host listens now; told is what it tells the others: its name, which moves with it.
func (h *host) address(port int) string { return fmt.Sprintf("%s:%d", *h.ip.Load(), port) }
func (h *host) told(port int) string    { return fmt.Sprintf("%s:%d", h.name, port) }

// timings are slow, so that an hour of them costs seconds: what matters is how they stand to each other. The lease is as long
// as raft allows: a leader that was cut off believes in itself for longer than others wait before they elect one.
func (h *host) timings() cluster.Timings {
	at := func(d time.Duration) time.Duration { return time.Duration(float64(d) * h.pace) }
	return cluster.Timings{
		Heartbeat: at(2 * time.Second), Election: at(2 * time.Second), Lease: at(2 * time.Second),
		Commit: at(250 * time.Millisecond), Transport: at(8 * time.Second), Disk: at(20 * time.Second),
		Call: at(3 * time.Second), Patience: at(6 * time.Second), Tick: at(time.Second), Rejoin: at(15 * time.Second),
		Probe: at(3 * time.Second), SnapshotInterval: at(45 * time.Second), SnapshotThreshold: 48,
		TrailingLogs: h.fleet.trailing,
	}
}

// start runs a node on what the disk holds.
func (h *host) start() (err error) {
	h.busy <- struct{}{}
	defer func() { <-h.busy }()
	if h.running.Load() != nil || h.fleet.closed.Load() {
		return nil
	}
	n := &node{catalog: h.fleet.newCatalog(), endpoint: newEndpoint(h.fleet.network, *h.ip.Load()), dead: make(chan struct{})}
	cfg := cluster.Config{
		DataDir: h.dir, Name: h.name, Expect: h.fleet.options.Voters, Join: h.fleet.join(), Timings: h.timings(),
		Listen:    cluster.Addresses{Raft: h.address(raftPort), Gossip: h.address(gossipPort)},
		Advertise: cluster.Addresses{Raft: h.told(raftPort), Gossip: h.told(gossipPort), Peer: h.told(peerPort)},
		Environment: cluster.Environment{
			Network: n.endpoint, OpenDisk: func() (cluster.Disk, error) { return h.disk.open(n.dead), nil },
			RacingHeartbeats: h.fleet.options.Planted == RacingHeartbeats,
		},
		Fatal: func(err error) { h.fleet.fatal(h, n, err) },
	}
	stop := func(err error) { h.fleet.failures.add("%s: the state machine stopped: %v", h.name, err) }
	machine := fsm.New(n.catalog, fsm.Options{Stop: stop, Applied: h.fleet.observer(h)})
	defer func() {
		if reason := recover(); reason != nil { // raft gives up so on a log it cannot have written
			h.fleet.failures.add("%s does not start: %v", h.name, reason)
			err = nil
		}
	}()
	n.cluster, err = cluster.Open(cfg, machine, n.catalog, peers{fleet: h.fleet, from: n.endpoint}, h.fleet.logger(h.name))
	if err != nil {
		n.endpoint.sever()
		return err
	}
	h.running.Store(n)
	return nil
}

// crash ends the node as a loss of power does.
func (h *host) crash() {
	h.busy <- struct{}{}
	defer func() { <-h.busy }()
	h.halt(h.running.Load())
}

func (h *host) halt(n *node) {
	if n == nil || !h.running.CompareAndSwap(n, nil) {
		return
	}
	n.endpoint.sever()
	close(n.dead)
	h.disk.crash()
	if err := n.cluster.Abandon(); err != nil && errdef.ReasonOf(err) != errdef.Internal {
		h.fleet.failures.add("%s does not stop: %v", h.name, err)
	}
}

// stop ends the node in good order.
func (h *host) stop(ctx context.Context) {
	h.busy <- struct{}{}
	defer func() { <-h.busy }()
	n := h.running.Load()
	if n == nil {
		return
	}
	if err := n.cluster.Shutdown(ctx); err != nil {
		h.fleet.logger(h.name).Warn("shutdown", "error", err)
	}
	h.running.Store(nil)
	n.endpoint.sever()
	close(n.dead)
}

// wipe empties the disk. A supervisor may have started the node again meanwhile: no node keeps running on a disk that is
// emptied under it. A planted bug lets the id survive.
func (h *host) wipe(keepID bool) error {
	h.busy <- struct{}{}
	defer func() { <-h.busy }()
	h.halt(h.running.Load())
	if keepID {
		h.disk.forgetLog()
		return nil
	}
	h.disk.wipe()
	if err := os.Remove(filepath.Join(h.dir, "node.json")); !errors.Is(err, fs.ErrNotExist) { // it may be wiped twice
		return err
	}
	return nil
}

// move gives a host another address, under no running node either.
func (h *host) move(ip string) {
	h.busy <- struct{}{}
	defer func() { <-h.busy }()
	h.halt(h.running.Load())
	h.settleAt(ip)
}

func (h *host) settleAt(ip string) {
	h.ip.Store(&ip)
	h.fleet.network.name(h.name, ip)
}

func (f *fleet) logger(name string) *slog.Logger {
	if f.options.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(f.options.Log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name)
}
