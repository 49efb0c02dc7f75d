package simulation

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"
)

// network joins all hosts of a run. Links are one-way: a link can be cut while the one back works. Like TCP, what was written
// to a cut link arrives when it is mended; packets of gossip are lost.
type network struct {
	dice *dice

	mutex     sync.Mutex // guards what follows, and all pipes
	cut       map[link]bool
	changed   chan struct{}     // closed, and made anew, when a link changes
	names     map[string]string // of hosts, to where they are
	listeners map[string]*listener
	gossip    map[string]*packets
	open      map[*conn]struct{}
}

// link leads from one host to another one.
type link struct{ from, to string }

func newNetwork(d *dice) *network {
	return &network{
		dice: d, cut: map[link]bool{}, changed: make(chan struct{}), names: map[string]string{}, listeners: map[string]*listener{},
		gossip: map[string]*packets{}, open: map[*conn]struct{}{},
	}
}

// setCut cuts or mends links.
func (n *network) setCut(cut bool, links ...link) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for _, l := range links {
		n.cut[l] = cut
	}
	n.announce()
}

// mend mends all links.
func (n *network) mend() {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	clear(n.cut)
	n.announce()
}

// announce wakes all who wait for a link. The caller holds mutex.
func (n *network) announce() {
	close(n.changed)
	n.changed = make(chan struct{})
	for c := range n.open {
		c.in.wake()
	}
}

// latency is the time that a message is under way.
func (n *network) latency() time.Duration {
	return n.dice.between(200*time.Microsecond, 3*time.Millisecond)
}

// carry waits as long as a message takes on a link, and as long as the link is cut.
func (n *network) carry(ctx context.Context, l link) error {
	if err := pause(ctx, n.latency()); err != nil {
		return err
	}
	for {
		n.mutex.Lock()
		cut, changed := n.cut[l], n.changed
		n.mutex.Unlock()
		if !cut {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// name says where a host is now.
func (n *network) name(host, ip string) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	n.names[host] = ip
}

// lookup resolves a name; an IP address stands for itself.
func (n *network) lookup(name string) (ip string, ok bool) {
	if net.ParseIP(name) != nil {
		return name, true
	}
	n.mutex.Lock()
	defer n.mutex.Unlock()
	ip, ok = n.names[name]
	return ip, ok
}

// dial connects two hosts. It needs both directions, as TCP does.
func (n *network) dial(ctx context.Context, from, address string) (net.Conn, error) {
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	to, ok := n.lookup(name)
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	address = net.JoinHostPort(to, port)
	for _, l := range []link{{from, to}, {to, from}} {
		if err := n.carry(ctx, l); err != nil {
			return nil, err
		}
	}
	n.mutex.Lock()
	l := n.listeners[address]
	n.mutex.Unlock()
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	near, far := n.connect(from, to, l.address)
	select {
	case l.accepted <- far:
		return near, nil
	default: // its backlog is full
		near.close()
		return nil, syscall.ECONNREFUSED
	}
}

// connect makes the two ends of a connection.
func (n *network) connect(from, to string, address string) (near, far *conn) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	there, back := newPipe(link{from, to}), newPipe(link{to, from})
	near = &conn{network: n, host: from, in: back, out: there, local: endpointAddress(from), remote: endpointAddress(address)}
	far = &conn{network: n, host: to, in: there, out: back, local: endpointAddress(address), remote: endpointAddress(from)}
	n.open[near], n.open[far] = struct{}{}, struct{}{}
	return near, far
}

func (n *network) listen(address string) (*listener, error) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if n.listeners[address] != nil {
		return nil, syscall.EADDRINUSE
	}
	l := &listener{network: n, address: address, accepted: make(chan *conn, 64), closed: make(chan struct{})}
	n.listeners[address] = l
	return l, nil
}

// endpointAddress is a host, or a host and port.
type endpointAddress string

func (a endpointAddress) Network() string { return "tcp" }
func (a endpointAddress) String() string  { return string(a) }

// listener is a bound port.
type listener struct {
	network  *network
	address  string
	accepted chan *conn
	closed   chan struct{}
	once     sync.Once
}

// Accept implements net.Listener, as do Close and Addr.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.close()
	return nil
}

func (l *listener) close() {
	l.once.Do(func() {
		l.network.mutex.Lock()
		if l.network.listeners[l.address] == l {
			delete(l.network.listeners, l.address)
		}
		l.network.mutex.Unlock()
		close(l.closed)
		for len(l.accepted) > 0 {
			(<-l.accepted).close()
		}
	})
}

func (l *listener) Addr() net.Addr {
	host, port, err := net.SplitHostPort(l.address)
	if err != nil {
		return endpointAddress(l.address)
	}
	number, err := net.LookupPort("tcp", port)
	if err != nil {
		return endpointAddress(l.address)
	}
	return &net.TCPAddr{IP: net.ParseIP(host), Port: number}
}
