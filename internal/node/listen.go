package node

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/ocistern/ocistern/internal/config"
	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// listeners are what this package serves on. Package cluster opens those of Raft and gossip itself.
type listeners struct {
	registry, grpc, admin, peer net.Listener
}

// listen opens all listeners or none, and checks that cluster will be able to open its own. It comes before anything is
// written, so that a port in use leaves nothing behind.
func listen(addresses config.Listen) (*listeners, error) {
	l := &listeners{}
	for _, want := range []struct {
		setting, address string
		listener         *net.Listener
	}{
		{"listen.registry", addresses.Registry, &l.registry},
		{"listen.grpc", addresses.GRPC, &l.grpc},
		{"listen.admin", addresses.Admin, &l.admin},
		{"listen.peer", addresses.Peer, &l.peer},
	} {
		var err error
		if *want.listener, err = net.Listen("tcp", want.address); err != nil {
			return nil, errors.Join(listenError(want.setting, want.address, err), l.close())
		}
	}
	for _, want := range []struct {
		setting, address string
		packets          bool
	}{
		{"listen.raft", addresses.Raft, false},
		{"listen.gossip", addresses.Gossip, true},
	} {
		if err := probe(want.address, want.packets); err != nil {
			return nil, errors.Join(listenError(want.setting, want.address, err), l.close())
		}
	}
	return l, nil
}

// probe opens and closes an address that somebody else is going to listen on.
func probe(address string, packets bool) error {
	stream, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	opened := []io.Closer{stream}
	if packets {
		socket, err := net.ListenPacket("udp", address)
		if err != nil {
			return errors.Join(err, stream.Close())
		}
		opened = append(opened, socket)
	}
	for _, closer := range opened {
		err = errors.Join(err, closer.Close())
	}
	return err
}

// close closes what is open; a listener that a server has closed already is no error.
func (l *listeners) close() error {
	var failures []error
	for _, listener := range []net.Listener{l.registry, l.grpc, l.admin, l.peer} {
		if listener == nil {
			continue
		}
		if err := listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

func listenError(setting, address string, cause error) error {
	flag := "--" + strings.ReplaceAll(setting, ".", "-")
	if errors.Is(cause, syscall.EADDRINUSE) {
		return errdef.Wrap(errdef.AddressInUse, cause, "%s %s is in use", setting, address).
			WithRemedy("stop the process that uses it, or choose another with %s", flag)
	}
	return errdef.Wrap(errdef.ConfigInvalid, cause, "cannot listen on %s %s", setting, address).
		WithRemedy("choose an address of this machine and a port this user may open with %s", flag)
}

// prepareDataDir makes the data directory, or says why the node cannot live there.
func prepareDataDir(dir string) error {
	if err := durable.MakeDir(dir, 0o750); err != nil {
		return errdef.Wrap(errdef.ConfigInvalid, err, "data-dir %s cannot be made", dir).
			WithRemedy("name a directory that this user may write to with --data-dir")
	}
	trial, err := os.CreateTemp(dir, ".writable-")
	if err == nil {
		err = errors.Join(trial.Close(), os.Remove(trial.Name()))
	}
	if err != nil {
		return errdef.Wrap(errdef.ConfigInvalid, err, "data-dir %s cannot be written", dir).
			WithRemedy("name a directory that this user may write to with --data-dir")
	}
	return nil
}
