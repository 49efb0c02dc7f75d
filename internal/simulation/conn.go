package simulation

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// conn is one end of a connection.
type conn struct {
	network       *network
	host          string
	in, out       *pipe
	local, remote net.Addr
	closed        bool // guarded by network.mutex
}

// pipe carries bytes one way. It is guarded by the mutex of its network.
type pipe struct {
	link     link
	segments []segment
	deadline time.Time     // of the reader
	changed  chan struct{} // capacity 1
}

// segment is what one Write brought; nil data is the end.
type segment struct {
	data []byte
	due  time.Time
}

func newPipe(l link) *pipe { return &pipe{link: l, changed: make(chan struct{}, 1)} }

func (p *pipe) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Read implements net.Conn, as do the methods below.
func (c *conn) Read(buffer []byte) (int, error) {
	for {
		n, wait, err := c.take(buffer)
		if n > 0 || err != nil {
			return n, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-c.in.changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// forever is longer than any run.
const forever = 1000 * time.Hour

// take returns what has arrived, or how long to wait for it.
func (c *conn) take(buffer []byte) (int, time.Duration, error) {
	c.network.mutex.Lock()
	defer c.network.mutex.Unlock()
	now, p, wait := time.Now(), c.in, forever
	if c.closed {
		return 0, 0, net.ErrClosed
	}
	if !p.deadline.IsZero() {
		if wait = p.deadline.Sub(now); wait <= 0 {
			return 0, 0, os.ErrDeadlineExceeded
		}
	}
	if len(p.segments) == 0 || c.network.cut[p.link] {
		return 0, wait, nil
	}
	head := &p.segments[0]
	if arrival := head.due.Sub(now); arrival > 0 {
		return 0, min(arrival, wait), nil
	}
	if head.data == nil {
		return 0, 0, io.EOF
	}
	n := copy(buffer, head.data)
	if head.data = head.data[n:]; len(head.data) == 0 {
		p.segments = p.segments[1:]
	}
	return n, 0, nil
}

func (c *conn) Write(data []byte) (int, error) {
	c.network.mutex.Lock()
	defer c.network.mutex.Unlock()
	if c.closed {
		return 0, syscall.EPIPE
	}
	if len(data) > 0 {
		c.out.send(append([]byte(nil), data...), c.network.latency())
	}
	return len(data), nil
}

// send puts a segment behind those under way.
func (p *pipe) send(data []byte, latency time.Duration) {
	due := time.Now().Add(latency)
	if last := len(p.segments) - 1; last >= 0 && p.segments[last].due.After(due) {
		due = p.segments[last].due
	}
	p.segments = append(p.segments, segment{data: data, due: due})
	p.wake()
}

func (c *conn) Close() error {
	c.close()
	return nil
}

func (c *conn) close() {
	c.network.mutex.Lock()
	defer c.network.mutex.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	delete(c.network.open, c)
	c.out.send(nil, c.network.latency())
	c.in.wake()
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.network.mutex.Lock()
	defer c.network.mutex.Unlock()
	c.in.deadline = t
	c.in.wake()
	return nil
}

func (c *conn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(time.Time) error { return nil } // a write never waits
func (c *conn) LocalAddr() net.Addr              { return c.local }
func (c *conn) RemoteAddr() net.Addr             { return c.remote }
