package simulation

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/ocistern/ocistern/cluster"
)

// endpoint is the network as one run of one node sees it; it ends when the node crashes.
type endpoint struct {
	network *network
	host    string
	alive   context.Context
	end     context.CancelFunc

	mutex sync.Mutex // guards bound
	bound []interface{ close() }
}

var _ cluster.Network = (*endpoint)(nil)

func newEndpoint(n *network, host string) *endpoint {
	e := &endpoint{network: n, host: host}
	e.alive, e.end = context.WithCancel(context.Background())
	return e
}

// Listen implements cluster.Network, as do Dial, LookupIPAddr and Gossip.
func (e *endpoint) Listen(address string) (net.Listener, error) {
	l, err := e.network.listen(address)
	if err != nil {
		return nil, err
	}
	e.bind(l)
	return l, nil
}

// LookupIPAddr knows the hosts, and IP addresses.
func (e *endpoint) LookupIPAddr(_ context.Context, name string) ([]net.IPAddr, error) {
	ip, ok := e.network.lookup(name)
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return []net.IPAddr{{IP: net.ParseIP(ip)}}, nil
}

func (e *endpoint) bind(closer interface{ close() }) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.bound = append(e.bound, closer)
}

func (e *endpoint) Dial(ctx context.Context, address string) (net.Conn, error) {
	if err := e.alive.Err(); err != nil {
		return nil, net.ErrClosed
	}
	return e.network.dial(ctx, e.host, address)
}

// sever is what a crash does: nothing gets in or out any more.
func (e *endpoint) sever() {
	e.end()
	e.mutex.Lock()
	bound := e.bound
	e.mutex.Unlock()
	for _, b := range bound {
		b.close()
	}
	e.network.mutex.Lock()
	var own []*conn
	for c := range e.network.open {
		if c.host == e.host {
			own = append(own, c)
		}
	}
	e.network.mutex.Unlock()
	for _, c := range own {
		c.close()
	}
}

func (e *endpoint) Gossip(address string) (memberlist.Transport, error) {
	l, err := e.network.listen(address)
	if err != nil {
		return nil, err
	}
	p := &packets{
		endpoint: e, listener: l, address: address, received: make(chan *memberlist.Packet, 256),
		streams: make(chan net.Conn), closed: make(chan struct{}),
	}
	e.network.mutex.Lock()
	e.network.gossip[address] = p
	e.network.mutex.Unlock()
	e.bind(p)
	go p.accept()
	return p, nil
}

// packets is what memberlist gossips over.
type packets struct {
	endpoint *endpoint
	listener *listener
	address  string
	received chan *memberlist.Packet
	streams  chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

const (
	lostPackets    = 0.02
	doubledPackets = 0.01
)

func (p *packets) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		select {
		case p.streams <- c:
		case <-p.closed:
			c.Close()
			return
		}
	}
}

// FinalAdvertiseAddr implements memberlist.Transport, as do the methods below.
func (p *packets) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	told, ok := p.listener.Addr().(*net.TCPAddr)
	if !ok {
		return nil, 0, errors.New("no IP address: " + p.address)
	}
	return told.IP, told.Port, nil
}

func (p *packets) WriteTo(packet []byte, address string) (time.Time, error) {
	now, n := time.Now(), p.endpoint.network
	copies := 1
	switch roll := n.dice.float(); {
	case roll < lostPackets:
		copies = 0
	case roll < lostPackets+doubledPackets:
		copies = 2
	}
	for range copies {
		content := append([]byte(nil), packet...)
		time.AfterFunc(n.latency(), func() { n.deliver(p, address, content) })
	}
	return now, nil
}

// deliver hands over a packet, unless it is lost: for a cut link, a dead host, a full queue.
func (n *network) deliver(from *packets, address string, content []byte) {
	n.mutex.Lock()
	to := n.gossip[address]
	lost := to == nil || n.cut[link{from.endpoint.host, to.endpoint.host}] || from.endpoint.alive.Err() != nil
	n.mutex.Unlock()
	if lost {
		return
	}
	select {
	case to.received <- &memberlist.Packet{Buf: content, From: from.listener.Addr(), Timestamp: time.Now()}:
	default:
	}
}

func (p *packets) PacketCh() <-chan *memberlist.Packet { return p.received }

func (p *packets) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(p.endpoint.alive, timeout)
	defer cancel()
	return p.endpoint.Dial(ctx, address)
}

func (p *packets) StreamCh() <-chan net.Conn { return p.streams }

func (p *packets) Shutdown() error {
	p.close()
	return nil
}

// close frees the address.
func (p *packets) close() {
	p.once.Do(func() {
		n := p.endpoint.network
		n.mutex.Lock()
		if n.gossip[p.address] == p {
			delete(n.gossip, p.address)
		}
		n.mutex.Unlock()
		close(p.closed)
		p.listener.close()
	})
}
