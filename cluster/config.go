package cluster

import (
	"net"
	"time"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Config is what a node is told about itself and its cluster.
type Config struct {
	// DataDir holds node.json and raft/. It is created when missing and belongs to one process at a time.
	DataDir string
	// Name is for people: it may change and need not be unique. At most 64 bytes.
	Name string
	// Expect is the number of nodes with empty disks that bootstrap a cluster together, and the number of voters it
	// keeps; further nodes are nonvoters. At least 1.
	Expect int
	// DeadVoterAfter is how long a member must have answered no heartbeat of the leader, and have been seen alive by
	// nobody, before a nonvoter takes its place; 0 for never.
	DeadVoterAfter time.Duration
	// Steady is how long a nonvoter must have answered all heartbeats before it takes that place; 10 s where it is zero.
	Steady time.Duration
	// Listen.Raft and Listen.Gossip are bound here (port 0 picks a free one); the other fields are not looked at.
	Listen Addresses
	// Advertise is what the other nodes are told. Hosts may be DNS names, which are resolved at each dial. An empty
	// host or a port of 0 in Raft and Gossip is filled in from what was bound.
	Advertise Addresses
	// Join lists gossip addresses of other nodes, resolved again at each attempt. This node's own address may be among
	// them. A node with an empty disk bootstraps only when all of them have answered.
	Join []string
	// ReserveBytes of disk are kept in DataDir for what must be written when the disk is full; 0 for none.
	ReserveBytes int64
	// Fatal is told that this node's disk fails or hangs: the process must exit, so that another node can lead. It
	// may be called more than once, from any goroutine, and must not block. Nil for a node that goes on, as in tests.
	Fatal func(error)
	// FeatureLevel is the highest feature level that this node lets the cluster rise to, so that older builds can still be
	// run; zero is what this build supports. It does not lower a level that was reached.
	FeatureLevel catalog.FeatureLevel
	// Timings may be left zero.
	Timings Timings
	// Environment may be left zero.
	Environment Environment
}

// Addresses are the host:port pairs of one node.
type Addresses struct {
	Raft, Gossip, Peer, GRPC, Registry string
}

// Timings are the times and limits of Raft and gossip. A zero field takes the default.
type Timings struct {
	// Heartbeat and Election are raft's timeouts, 800 ms each; Lease is how long a leader believes in itself without a
	// quorum, 400 ms; Commit is how soon followers learn of a commit when no entry follows, 20 ms.
	Heartbeat, Election, Lease, Commit time.Duration
	// Transport bounds one Raft RPC and one dial; 5 s. Snapshots get this much for each 256 KiB.
	Transport time.Duration
	// Disk is how long a write to the raft log may take before the disk counts as hanging; 10 s.
	Disk time.Duration
	// Call bounds one call of Peers that this package makes for itself; 2 s.
	Call time.Duration
	// Patience is how long Apply looks for a leader before it gives up with NO_QUORUM; 2 s.
	Patience time.Duration
	// Tick is how often membership is looked at when nothing happens; 250 ms.
	Tick time.Duration
	// Compare is how often a node compares its running hash with the voters'; 5 s.
	Compare time.Duration
	// Rejoin is how often Join is tried again once this node belongs to a cluster; 10 s. Before, it is four Ticks.
	Rejoin time.Duration
	// Probe is the interval of gossip's failure detector; 1 s. A dead node is known as dead after about five of them.
	Probe time.Duration
	// SnapshotInterval (30 s), SnapshotThreshold (8192 entries) and TrailingLogs (10240 entries) are raft's.
	SnapshotInterval                time.Duration
	SnapshotThreshold, TrailingLogs uint64
}

func (t Timings) complete() Timings {
	for _, field := range []struct {
		value *time.Duration
		unset time.Duration
	}{
		{&t.Heartbeat, 800 * time.Millisecond}, {&t.Election, 800 * time.Millisecond},
		{&t.Lease, 400 * time.Millisecond}, {&t.Commit, 20 * time.Millisecond},
		{&t.Transport, 5 * time.Second}, {&t.Call, 2 * time.Second}, {&t.Patience, 2 * time.Second},
		{&t.Tick, 250 * time.Millisecond}, {&t.Rejoin, 10 * time.Second}, {&t.Probe, time.Second},
		{&t.Disk, 10 * time.Second},
		{&t.Compare, 5 * time.Second}, {&t.SnapshotInterval, 30 * time.Second},
	} {
		if *field.value == 0 {
			*field.value = field.unset
		}
	}
	if t.SnapshotThreshold == 0 {
		t.SnapshotThreshold = 8192
	}
	if t.TrailingLogs == 0 {
		t.TrailingLogs = 10240
	}
	return t
}

// maxName bounds Config.Name, so that the gossip metadata stays within its 512 bytes.
const maxName = 64

// complete returns the configuration with defaults, or an error of reason CONFIG_INVALID.
func (c Config) complete() (Config, error) {
	c.Timings = c.Timings.complete()
	if c.Steady == 0 {
		c.Steady = 10 * time.Second
	}
	if c.Fatal == nil {
		c.Fatal = func(error) {}
	}
	if c.Environment.Network == nil {
		c.Environment.Network = machine{}
	}
	switch {
	case c.DataDir == "":
		return c, errdef.New(errdef.ConfigInvalid, "no data directory").WithRemedy("set data-dir")
	case c.Expect < 1:
		return c, errdef.New(errdef.ConfigInvalid, "a cluster of %d nodes is expected", c.Expect).
			WithRemedy("set cluster.expect to 1, 3 or 5")
	case len(c.Name) > maxName:
		return c, errdef.New(errdef.ConfigInvalid, "the name %q is longer than %d bytes", c.Name, maxName).
			WithRemedy("shorten name")
	}
	for _, setting := range []struct{ name, value string }{
		{"listen.raft", c.Listen.Raft}, {"listen.gossip", c.Listen.Gossip},
	} {
		if _, _, err := net.SplitHostPort(setting.value); err != nil {
			return c, errdef.Wrap(errdef.ConfigInvalid, err, "%s is %q", setting.name, setting.value).
				WithRemedy("write it as host:port")
		}
	}
	for _, address := range c.Join {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return c, errdef.Wrap(errdef.ConfigInvalid, err, "cluster.join holds %q", address).
				WithRemedy("write it as host:port")
		}
	}
	return c, nil
}

// advertised returns the address to tell the others: told, with what it leaves open taken from the bound address.
func advertised(told string, bound net.Addr) (string, error) {
	boundHost, boundPort, err := net.SplitHostPort(bound.String())
	if err != nil {
		return "", errdef.Wrap(errdef.Internal, err, "bound to %s", bound)
	}
	if told == "" {
		told = net.JoinHostPort("", "0")
	}
	host, port, err := net.SplitHostPort(told)
	if err != nil {
		return "", errdef.Wrap(errdef.ConfigInvalid, err, "the advertised address %q", told).
			WithRemedy("write it as host:port")
	}
	if port == "0" || port == "" {
		port = boundPort
	}
	if host == "" {
		host = boundHost
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return "", errdef.New(errdef.ConfigInvalid, "other nodes cannot reach %s", net.JoinHostPort(host, port)).
			WithRemedy("set advertise-host to an address or DNS name of this node")
	}
	return net.JoinHostPort(host, port), nil
}
