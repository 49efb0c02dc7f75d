package node

import (
	"net"
	"testing"

	"github.com/ocistern/ocistern/internal/config"
)

func TestAdvertise(t *testing.T) {
	listen4, err := listen(config.Listen{
		Registry: "127.0.0.1:0", GRPC: "0.0.0.0:0", Admin: "127.0.0.1:0", Peer: ":0",
		Raft: "127.0.0.1:0", Gossip: "0.0.0.0:0",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := listen4.close(); err != nil {
			t.Error(err)
		}
	})
	machine := machineAddress()
	tests := []struct {
		host                            string
		raft, gossip, peerHost, regHost string
	}{
		{"", "10.0.0.7:5040", machine + ":5050", machine, "127.0.0.1"},
		{"node-1.example", "node-1.example:5040", "node-1.example:5050", "node-1.example", "node-1.example"},
	}
	for _, test := range tests {
		got := advertise(config.Config{
			AdvertiseHost: test.host, Listen: config.Listen{Raft: "10.0.0.7:5040", Gossip: "0.0.0.0:5050"},
		}, listen4)
		if got.Raft != test.raft || got.Gossip != test.gossip || hostOf(t, got.Peer) != test.peerHost ||
			hostOf(t, got.Registry) != test.regHost {
			t.Errorf("advertise-host %q: %+v", test.host, got)
		}
	}
}

func hostOf(t *testing.T, address string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "0" {
		t.Errorf("address %q: %v", address, err)
	}
	return host
}
