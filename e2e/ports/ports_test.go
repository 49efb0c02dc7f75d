package ports_test

import (
	"net"
	"testing"

	"github.com/ocistern/ocistern/e2e/ports"
)

func TestFreePortsAreDifferentAndFree(t *testing.T) {
	free, err := ports.Free(20)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, port := range free {
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
