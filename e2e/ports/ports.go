// Package ports hands out TCP and UDP ports of loopback to processes started by the tests and the demo: ports that they
// find free again after a restart, however many tests run at the same time.
//
// It stays below the range from which operating systems draw the ports of outgoing connections.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

const (
	lowest    = 10240
	highest   = 32000 // Linux draws ephemeral ports from 32768 on
	blockSize = 64
	attempts  = 1000
)

// Block is a range of ports that belongs to its holder alone: whoever takes ports from this package, in this process or
// another, leaves it out. It is not safe for concurrent use.
type Block struct {
	guard net.Listener // on the first port of the range; the kernel frees it when the process dies
	first int
	given int
}

// Reserve returns a block that nobody else holds.
func Reserve() (*Block, error) {
	for range attempts {
		first := lowest + rand.IntN((highest-lowest)/blockSize)*blockSize
		guard, err := net.Listen("tcp", Address(first))
		if err == nil {
			return &Block{guard: guard, first: first}, nil
		}
	}
	return nil, fmt.Errorf("no block of %d ports is free on 127.0.0.1", blockSize)
}

// Next returns a port of the block that was not given before, and on which nothing listens at the moment, on TCP nor UDP.
func (b *Block) Next() (int, error) {
	for b.given+1 < blockSize {
		b.given++
		if port := b.first + b.given; free(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("all ports of the block from %d on are taken", b.first)
}

// Release gives the block back.
func (b *Block) Release() error { return b.guard.Close() }

func free(port int) bool {
	stream, err := net.Listen("tcp", Address(port))
	if err != nil {
		return false
	}
	defer stream.Close()
	packet, err := net.ListenPacket("udp", Address(port))
	if err != nil {
		return false
	}
	return packet.Close() == nil
}

// Address returns the loopback address of a port, as host:port.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
