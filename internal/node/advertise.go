package node

import (
	"net"

	"github.com/ocistern/ocistern/cluster"
	"github.com/ocistern/ocistern/internal/config"
)

// advertise returns the addresses under which others reach this node: the configured host, else the host of each
// listener, else (for a listener on all interfaces) the first address of this machine. A port 0 of Raft and gossip
// stays, for package cluster to fill in.
func advertise(cfg config.Config, l *listeners) cluster.Addresses {
	machine := machineAddress()
	at := func(listen string) string {
		host, port, err := net.SplitHostPort(listen)
		if err != nil {
			return listen // was validated; package cluster reports what it cannot use
		}
		if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
			host = machine
		}
		if cfg.AdvertiseHost != "" {
			host = cfg.AdvertiseHost
		}
		return net.JoinHostPort(host, port)
	}
	return cluster.Addresses{
		Raft: at(cfg.Listen.Raft), Gossip: at(cfg.Listen.Gossip),
		Peer: at(l.peer.Addr().String()), GRPC: at(l.grpc.Addr().String()), Registry: at(l.registry.Addr().String()),
	}
}

// machineAddress returns the first address of this machine that other machines may reach, IPv4 before IPv6, or that of
// the loopback interface when there is none.
func machineAddress() string {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "127.0.0.1"
	}
	found := ""
	for _, address := range addresses {
		network, ok := address.(*net.IPNet)
		if !ok || !network.IP.IsGlobalUnicast() {
			continue
		}
		if network.IP.To4() != nil {
			return network.IP.String()
		}
		if found == "" {
			found = network.IP.String()
		}
	}
	if found == "" {
		return "127.0.0.1"
	}
	return found
}
