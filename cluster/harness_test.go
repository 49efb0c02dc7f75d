package cluster

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// patience is how long a test waits for what must happen; a busy machine needs more than an idle one.
const patience = 2 * time.Minute

// fleet is a set of nodes in this process: real TCP for Raft, real UDP and TCP for gossip, and Peers that call each
// other by address.
type fleet struct {
	t testing.TB

	mutex sync.Mutex // guards nodes
	nodes map[string]*node

	// Where they are set, before any node runs, they take the place of asking the other node.
	promise   func(*Cluster, Promise) error
	apply     func(context.Context, *Cluster, fsm.Request) (catalog.LogIndex, error)
	state     func(*Cluster) (NodeState, error)
	hash      func(*Cluster, catalog.LogIndex) (Hash, error)
	readIndex func(context.Context, *Cluster, Witness) (catalog.LogIndex, error)
	survey    func(context.Context) ([]Member, error)

	options []catalog.Option // of every node's catalog
}

// node is one member of a fleet; it outlives its Cluster, which a test may stop and start.
type node struct {
	fleet   *fleet
	config  Config
	cluster *Cluster
	catalog *catalog.Catalog
	// wrap, where set, stands between Raft and the state machine.
	wrap func(Machine) Machine
}

func newFleet(t testing.TB) *fleet {
	return &fleet{t: t, nodes: map[string]*node{}}
}

// testTimings are short, but long enough for a machine that is busy with other tests.
func testTimings() Timings {
	return Timings{
		Heartbeat: 2 * time.Second, Election: 2 * time.Second, Lease: 1600 * time.Millisecond,
		Commit: 10 * time.Millisecond, Transport: 5 * time.Second, Tick: 50 * time.Millisecond,
		Probe: 200 * time.Millisecond, Rejoin: 300 * time.Millisecond,
	}
}

// prepare makes nodes with addresses and empty disks; each is to join all of them. None runs yet.
func (f *fleet) prepare(count, expect int) []*node {
	f.t.Helper()
	nodes := make([]*node, count)
	join := make([]string, count)
	for i := range nodes {
		join[i] = freeAddress()
		nodes[i] = f.add(expect, join[i])
	}
	for _, n := range nodes {
		n.config.Join = join
	}
	return nodes
}

func (f *fleet) add(expect int, gossip string, join ...string) *node {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	name := fmt.Sprintf("n%d", len(f.nodes)+1)
	n := &node{fleet: f, config: Config{
		DataDir: f.t.TempDir(), Name: name, Expect: expect, Join: join, Timings: testTimings(),
		Listen:    Addresses{Raft: freeAddress(), Gossip: gossip},
		Advertise: Addresses{Peer: "127.0.0.1:" + name, GRPC: "127.0.0.1:1", Registry: "127.0.0.1:2"},
	}}
	f.nodes[n.config.Advertise.Peer] = n
	f.t.Cleanup(n.crash)
	return n
}

// TestMain runs more tests at a time than there are processors, since nearly all that they do is wait; -parallel says otherwise.
func TestMain(m *testing.M) {
	flag.Parse()
	told := false
	flag.Visit(func(f *flag.Flag) { told = told || f.Name == "test.parallel" })
	if !told {
		if err := flag.Set("test.parallel", "4"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// lastPort is the port that freeAddress gave last.
var lastPort atomic.Int32

// freeAddress returns an address that nobody else takes, also while the node that has it is down. All of 127.0.0.0/8 is
// this machine, so each process has a host of its own there, and on it each address a port of its own. Outgoing connections
// come from 127.0.0.1.
func freeAddress() string {
	pid, port := os.Getpid(), 1024+lastPort.Add(1)
	return fmt.Sprintf("127.%d.%d.%d:%d", pid>>16, pid>>8&0xff, pid&0xff, port)
}

// open starts a node on whatever its data directory holds.
func (n *node) open() error {
	cat := catalog.New(n.fleet.options...)
	stop := func(err error) { n.fleet.t.Errorf("%s: the state machine stopped: %v", n.config.Name, err) }
	var machine Machine = fsm.New(cat, fsm.Options{Stop: stop})
	if n.wrap != nil {
		machine = n.wrap(machine)
	}
	opened, err := Open(n.config, machine, cat, n.fleet, testLogger(n.config.Name))
	n.fleet.mutex.Lock()
	defer n.fleet.mutex.Unlock()
	n.cluster, n.catalog = opened, cat
	return err
}

func testLogger(name string) *slog.Logger {
	if os.Getenv("OCISTERN_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", name)
}

func (n *node) start() {
	n.fleet.t.Helper()
	if err := n.open(); err != nil {
		n.fleet.t.Fatalf("%s: %v", n.config.Name, err)
	}
}

// start starts nodes at once and waits until all are ready.
func (f *fleet) start(nodes ...*node) {
	f.t.Helper()
	var starting sync.WaitGroup
	for _, n := range nodes {
		starting.Go(func() {
			if err := n.open(); err != nil {
				f.t.Errorf("%s: %v", n.config.Name, err)
			}
		})
	}
	starting.Wait()
	if f.t.Failed() {
		f.t.FailNow()
	}
	f.waitReady(nodes...)
}

func (f *fleet) waitReady(nodes ...*node) {
	f.t.Helper()
	for _, n := range nodes {
		f.eventually(n.config.Name+" is ready", n.cluster.Ready)
	}
}

// running returns the node's Cluster, nil while it is stopped.
func (n *node) running() *Cluster {
	n.fleet.mutex.Lock()
	defer n.fleet.mutex.Unlock()
	return n.cluster
}

// detach makes the node unreachable for Peers and returns what ran.
func (n *node) detach() *Cluster {
	n.fleet.mutex.Lock()
	defer n.fleet.mutex.Unlock()
	c := n.cluster
	n.cluster = nil
	return c
}

// crash stops a node without a word: no transfer, no goodbye.
func (n *node) crash() {
	if c := n.detach(); c != nil {
		if err := c.abandon(); err != nil {
			n.fleet.t.Errorf("%s: %v", n.config.Name, err)
		}
	}
}

// stop shuts a node down in good order.
func (n *node) stop() {
	n.fleet.t.Helper()
	c := n.running()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Shutdown(ctx); err != nil {
		n.fleet.t.Fatalf("%s: %v", n.config.Name, err)
	}
	n.detach()
}

// wipe empties the disk of a stopped node.
func (n *node) wipe() { n.config.DataDir = n.fleet.t.TempDir() }

// eventually waits until check returns nil.
func (f *fleet) eventually(what string, check func() error) {
	f.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline.C:
			f.t.Fatalf("waiting until %s: %v", what, err)
		}
	}
}

// push is a command that makes a tag.
func push(tag string) catalog.Publish {
	content := digest.FromString(tag)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: content, Size: int64(len(tag))}
	return catalog.Publish{
		Tenant: "default", Repository: "team/app", Source: catalog.SourcePushed, Time: time.Unix(1_700_000_000, 0),
		Holder: "holder", Blobs: []ocispec.Descriptor{desc}, Manifests: []catalog.Manifest{{Descriptor: desc}},
		Tags: []catalog.TagUpdate{{Name: reference.Tag(tag), Descriptor: desc}},
	}
}

// write pushes a tag through a node.
func (n *node) write(tag string) catalog.LogIndex {
	n.fleet.t.Helper()
	return n.apply(push(tag))
}

// apply submits a command through a node, again while the cluster has no leader or has just lost one.
func (n *node) apply(command catalog.Publish) catalog.LogIndex {
	n.fleet.t.Helper()
	var index catalog.LogIndex
	what := fmt.Sprintf("%s is written through %s", command.Tags[0].Name, n.config.Name)
	n.fleet.eventually(what, func() (err error) {
		index, err = n.cluster.Apply(n.fleet.t.Context(), command)
		return err
	})
	return index
}

// hasTags waits until a node's catalog holds the tags.
func (n *node) hasTags(tags ...string) {
	n.fleet.t.Helper()
	for _, tag := range tags {
		n.fleet.eventually(n.config.Name+" has "+tag, func() error {
			if _, ok := n.catalog.Snapshot().Tag("default", "team/app", reference.Tag(tag)); !ok {
				return errdef.New(errdef.NotFound, "catalog is at index %d", n.catalog.Snapshot().Index())
			}
			return nil
		})
	}
}

// leader waits until one of the nodes leads and the others know it.
func (f *fleet) leader(nodes ...*node) *node {
	f.t.Helper()
	var found *node
	f.eventually("there is a leader", func() error {
		found = nil
		for _, n := range nodes {
			leader := n.cluster.Status().Leader
			for _, candidate := range nodes {
				if candidate.cluster.Self() == leader && (found == nil || found == candidate) {
					found = candidate
				}
			}
			if found == nil || leader != found.cluster.Self() {
				return errdef.New(errdef.NoQuorum, "%s follows %q", n.config.Name, leader)
			}
		}
		return nil
	})
	return found
}

// without returns the nodes but one.
func without(nodes []*node, gone *node) []*node {
	var rest []*node
	for _, n := range nodes {
		if n != gone {
			rest = append(rest, n)
		}
	}
	return rest
}

// roles returns the role of each node as another one sees it.
func (n *node) roles() map[catalog.NodeID]Role {
	roles := map[catalog.NodeID]Role{}
	for _, m := range n.cluster.Members() {
		if m.Role != RoleNone {
			roles[m.ID] = m.Role
		}
	}
	return roles
}

// waitRole waits until n sees the role of a node.
func (n *node) waitRole(id catalog.NodeID, role Role) {
	n.fleet.t.Helper()
	n.fleet.eventually(fmt.Sprintf("%s sees %s as %s", n.config.Name, id, role), func() error {
		if got := n.roles()[id]; got != role {
			return errdef.New(errdef.NotReady, "it is %q", got)
		}
		return nil
	})
}

// sameDigest waits until all nodes hold the same catalog.
func (f *fleet) sameDigest(nodes ...*node) {
	f.t.Helper()
	f.eventually("all catalogs are equal", func() error {
		want, err := nodes[0].catalog.Snapshot().Digest()
		if err != nil {
			return err
		}
		for _, n := range nodes[1:] {
			if got, err := n.catalog.Snapshot().Digest(); err != nil || got != want {
				return errdef.New(errdef.NotReady, "%s has %s, want %s: %v", n.config.Name, got, want, err)
			}
		}
		return nil
	})
}

// deaf makes gossip believe a node dead, whatever it hears.
func (g *gossip) deaf(id catalog.NodeID) {
	g.mutex.Lock()
	s := g.sightings[id]
	s.State = StateDead
	g.sightings[id] = s
	g.mutex.Unlock()
	g.poke()
}
