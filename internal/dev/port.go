package dev

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strconv"

	"github.com/ocistern/ocistern/internal/config"
	"github.com/ocistern/ocistern/internal/errdef"
)

const loopback = "127.0.0.1"

// Free ports are drawn from below the range that systems use for outgoing connections, so that none of those takes a
// port again between its release here and the start of the node.
const (
	freeFirst    = 10000
	freeLast     = 31999
	freeAttempts = 200
)

// reservation holds ports until the nodes take them over.
type reservation struct {
	held []io.Closer
}

func (r *reservation) release() {
	for _, closer := range r.held {
		_ = closer.Close() // of a listener that nobody used
	}
	r.held = nil
}

// take reserves the addresses of one node, or says which one is in use.
func (r *reservation) take(listen config.Listen) (config.Listen, error) {
	for _, address := range addressesOf(&listen) {
		if err := r.hold(*address); err != nil {
			return config.Listen{}, errdef.Wrap(errdef.AddressInUse, err, "cannot start a node at %s", *address).
				WithRemedy("choose other ports, for example with --base-port 0")
		}
	}
	return listen, nil
}

// takeFree reserves free addresses for one node.
func (r *reservation) takeFree() (config.Listen, error) {
	var listen config.Listen
	for _, address := range addressesOf(&listen) {
		var err error
		for range freeAttempts {
			*address = net.JoinHostPort(loopback, strconv.Itoa(freeFirst+rand.IntN(freeLast-freeFirst)))
			if err = r.hold(*address); err == nil {
				break
			}
		}
		if err != nil {
			return config.Listen{}, errdef.Wrap(errdef.AddressInUse, err, "found no free port").
				WithRemedy("choose some with --base-port")
		}
	}
	return listen, nil
}

// hold reserves an address for TCP and for UDP, since gossip needs both.
func (r *reservation) hold(address string) error {
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	udp, err := net.ListenPacket("udp", address)
	if err != nil {
		return errors.Join(err, tcp.Close())
	}
	r.held = append(r.held, tcp, udp)
	return nil
}

func addressesOf(l *config.Listen) []*string {
	return []*string{&l.Registry, &l.GRPC, &l.Admin, &l.Peer, &l.Raft, &l.Gossip}
}
