package cluster

import (
	"context"
	"net"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"
)

// Environment is what a node stands on. Its zero value is this machine: TCP and UDP, and raft-boltdb in the data directory.
// The simulation (package internal/simulation) brings a network and disks that fail as it is told; everything above them
// is the same code.
type Environment struct {
	// Network carries Raft and gossip. Nil is this machine's.
	Network Network
	// OpenDisk opens what Raft writes. Nil is raft-boltdb and snapshot files in the directory raft of Config.DataDir.
	OpenDisk func() (Disk, error)
	// RacingHeartbeats plants the bug that our transport keeps out (hashicorp/raft issue 695), to see that it is found.
	RacingHeartbeats bool
}

// Network carries Raft and gossip between nodes. Its methods are safe for concurrent use.
type Network interface {
	// Listen binds an address for Raft.
	Listen(address string) (net.Listener, error)
	// Dial connects to the Raft address of another node.
	Dial(ctx context.Context, address string) (net.Conn, error)
	// Gossip binds an address for gossip. Nil lets memberlist bind UDP and TCP itself.
	Gossip(address string) (memberlist.Transport, error)
	// LookupIPAddr resolves a name, for gossip, which knows no names.
	LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error)
}

// Disk is what Raft writes. A log or stable store has made durable what it was given when the call returns.
type Disk struct {
	Logs      raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	Close     func() error
}

// machine is the network of this machine.
type machine struct{}

func (machine) Listen(address string) (net.Listener, error) { return net.Listen("tcp", address) }

func (machine) Dial(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

func (machine) Gossip(string) (memberlist.Transport, error) { return nil, nil }

func (machine) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	return net.DefaultResolver.LookupIPAddr(ctx, host)
}
