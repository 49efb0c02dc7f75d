package cluster

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
)

const (
	// maxHandshakes bounds the connections that have not said hello yet; more wait in the kernel's queue.
	maxHandshakes = 64
	// acceptPause follows an accept that failed, for example for want of file descriptors.
	acceptPause = 50 * time.Millisecond
)

// stream is raft's StreamLayer: TCP whose connections begin with the handshake. Names are resolved at each dial, so
// that a pod that came back under another IP is found.
type stream struct {
	network  Network
	listener net.Listener
	told     string // address that other nodes dial
	identity *identity
	timeout  time.Duration
	logger   *slog.Logger

	admitted chan net.Conn
	slots    chan struct{}
	ended    context.Context
	end      context.CancelFunc

	mutex sync.Mutex // guards open
	open  map[*trackedConn]struct{}
}

// listenStream binds the Raft port and starts to admit connections.
func listenStream(cfg *Config, id *identity, logger *slog.Logger) (*stream, error) {
	listener, err := cfg.Environment.Network.Listen(cfg.Listen.Raft)
	if err != nil {
		return nil, listenError(err, "listen.raft", cfg.Listen.Raft)
	}
	told, err := advertised(cfg.Advertise.Raft, listener.Addr())
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s := &stream{
		network: cfg.Environment.Network, listener: listener, told: told, identity: id, timeout: cfg.Timings.Transport, logger: logger,
		admitted: make(chan net.Conn), slots: make(chan struct{}, maxHandshakes), open: map[*trackedConn]struct{}{},
	}
	s.ended, s.end = context.WithCancel(context.Background())
	go s.serve()
	return s, nil
}

// listenError gives a failed listen its reason and names the setting.
func listenError(err error, setting, address string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return errdef.Wrap(errdef.AddressInUse, err, "%s: %s is in use", setting, address).
			WithRemedy("stop the process that uses the port, or change %s", setting)
	}
	return errdef.Wrap(errdef.ConfigInvalid, err, "%s: cannot listen on %s", setting, address).
		WithRemedy("set %s to an address of this machine", setting)
}

func (s *stream) serve() {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.logger.Error("cannot accept a raft connection", "error", err)
			select {
			case <-time.After(acceptPause):
			case <-s.ended.Done():
			}
			continue
		}
		select {
		case s.slots <- struct{}{}:
			go s.receive(conn)
		case <-s.ended.Done():
			conn.Close()
			return
		}
	}
}

// receive performs the handshake and hands an admitted connection to Raft.
func (s *stream) receive(conn net.Conn) {
	tracked := &trackedConn{Conn: conn, stream: s}
	if !s.track(tracked) {
		conn.Close()
		<-s.slots
		return
	}
	err := s.welcome(tracked)
	<-s.slots
	if err == nil {
		select {
		case s.admitted <- tracked:
			return
		case <-s.ended.Done():
		}
	} else if s.ended.Err() == nil {
		s.logger.Warn("raft connection refused", "from", conn.RemoteAddr().String(), "error", err)
	}
	s.forget(tracked)
	conn.Close()
}

func (s *stream) welcome(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	greeting, err := readHello(conn)
	if err != nil {
		return err
	}
	reply, refusal := s.identity.admit(greeting)
	if err := errors.Join(refusal, reply.write(conn)); err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

// Accept implements net.Listener.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case conn := <-s.admitted:
		return conn, nil
	case <-s.ended.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener: it ends the connections too, so that a node that stops is seen to stop.
func (s *stream) Close() error {
	s.end()
	err := s.listener.Close()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for conn := range s.open {
		conn.Conn.Close()
	}
	return err
}

// Addr implements net.Listener. It returns the advertised address: Raft tells it to the others.
func (s *stream) Addr() net.Addr { return tcpAddress(s.told) }

type tcpAddress string

func (a tcpAddress) Network() string { return "tcp" }
func (a tcpAddress) String() string  { return string(a) }

// track remembers an accepted connection, unless the stream is closed.
func (s *stream) track(conn *trackedConn) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.ended.Err() != nil {
		return false
	}
	s.open[conn] = struct{}{}
	return true
}

func (s *stream) forget(conn *trackedConn) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.open, conn)
}

// trackedConn is an accepted connection that the stream can end.
type trackedConn struct {
	net.Conn
	stream *stream
}

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	c.stream.forget(c)
	return c.Conn.Close()
}
