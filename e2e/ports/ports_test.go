package ports_test

import (
	"net"
	"testing"

	"github.com/ocistern/ocistern/e2e/ports"
)

// Ports of blocks that are held at the same time are all different, and free.
func TestBlocksAreApart(t *testing.T) {
	seen := map[int]bool{}
	for range 30 {
		block, err := ports.Reserve()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := block.Release(); err != nil {
				t.Error(err)
			}
		})
		for range 10 {
			port, err := block.Next()
			if err != nil {
				t.Fatal(err)
			}
			if seen[port] {
				t.Errorf("port %d was given twice", port)
			}
			seen[port] = true
			listener, err := net.Listen("tcp", ports.Address(port))
			if err != nil {
				t.Errorf("port %d is not free: %v", port, err)
				continue
			}
			listener.Close()
		}
	}
}

// What somebody else listens on is skipped, and a block that is used up says so.
func TestTakenPortsAreSkipped(t *testing.T) {
	block, err := ports.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := block.Release(); err != nil {
			t.Error(err)
		}
	}()
	first, err := block.Next()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", ports.Address(first+1))
	if err != nil {
		t.Skipf("a port is taken by somebody else: %v", err)
	}
	defer listener.Close()
	for {
		port, err := block.Next()
		if err != nil {
			return // used up
		}
		if port == first+1 {
			t.Fatalf("port %d is taken and was given", port)
		}
	}
}
