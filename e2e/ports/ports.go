// Package ports finds TCP and UDP ports on loopback that processes started by the tests and the demo may listen on, and
// listen on again after a restart.
//
// It chooses below the range from which operating systems draw the ports of outgoing connections, so that a stopped
// node or registry finds its port still free when it returns.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

const (
	lowest   = 10240
	highest  = 32000 // Linux draws ephemeral ports from 32768 on
	attempts = 2000
)

// Free returns n different ports which nothing listens on at the moment, on TCP nor UDP of 127.0.0.1.
func Free(n int) ([]int, error) {
	var found []int
	var held []interface{ Close() error }
	defer func() {
		for _, h := range held {
			_ = h.Close() // a probe: nothing was written through it
		}
	}()
	for range attempts {
		if len(found) == n {
			return found, nil
		}
		port := lowest + rand.IntN(highest-lowest)
		stream, err := net.Listen("tcp", Address(port))
		if err != nil {
			continue // taken; try another
		}
		held = append(held, stream)
		packet, err := net.ListenPacket("udp", Address(port))
		if err != nil {
			continue
		}
		held = append(held, packet)
		found = append(found, port)
	}
	return nil, fmt.Errorf("found only %d of %d free ports on 127.0.0.1", len(found), n)
}

// Address returns the loopback address of a port, as host:port.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
