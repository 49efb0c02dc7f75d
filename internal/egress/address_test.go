package egress

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/ocistern/ocistern/internal/errdef"
)

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		addr  string
		allow string
		plain bool
		ok    bool
	}{
		{addr: "8.8.8.8", ok: true},
		{addr: "2606:4700::1", ok: true},
		{addr: "64:ff9b::808:808", ok: true}, // NAT64 of 8.8.8.8
		{addr: "::ffff:8.8.8.8", ok: true},
		{addr: "0.0.0.0"}, {addr: "0.1.2.3"}, {addr: "::"},
		{addr: "127.0.0.1"}, {addr: "127.8.8.8"}, {addr: "::1"}, {addr: "::ffff:127.0.0.1"}, {addr: "64:ff9b::7f00:1"},
		{addr: "169.254.169.254"}, {addr: "fe80::1"}, {addr: "fe80::1%eth0"}, {addr: "64:ff9b::a9fe:a9fe"},
		{addr: "10.0.0.1"}, {addr: "172.16.0.1"}, {addr: "172.31.255.255"}, {addr: "192.168.1.1"}, {addr: "fd00:ec2::254"},
		{addr: "fc00::1"}, {addr: "fec0::1"}, {addr: "64:ff9b::a00:1"}, {addr: "::ffff:10.0.0.1"},
		{addr: "100.64.0.1"}, {addr: "100.100.100.200"}, {addr: "168.63.129.16"},
		{addr: "224.0.0.1"}, {addr: "239.1.1.1"}, {addr: "ff02::1"}, {addr: "ff0e::1"},
		{addr: "255.255.255.255"}, {addr: "240.0.0.1"}, {addr: "192.0.2.1"}, {addr: "198.18.0.1"}, {addr: "2001:db8::1"},
		{addr: "192.0.0.192"}, {addr: "198.51.100.1"}, {addr: "203.0.113.1"}, {addr: "192.88.99.1"}, {addr: "3fff::1"},
		{addr: "2002:7f00:1::"}, {addr: "2002:808:808::"}, {addr: "2001:0:7f00:1::"},
		{addr: "::7f00:1"}, {addr: "::ffff:0:7f00:1"}, {addr: "64:ff9b:1::7f00:1"}, {addr: "100::1"}, {addr: "5f00::1"},
		{addr: "172.32.0.1", ok: true}, {addr: "100.128.0.1", ok: true}, {addr: "11.0.0.1", ok: true},
		{addr: "10.0.0.1", allow: "10.0.0.0/24", ok: true}, {addr: "10.0.1.1", allow: "10.0.0.0/24"},
		{addr: "64:ff9b::a00:1", allow: "10.0.0.0/24", ok: true}, {addr: "::ffff:10.0.0.1", allow: "10.0.0.0/24", ok: true},
		{addr: "fe80::1%eth0", allow: "fe80::/64", ok: true}, {addr: "2002:808:808::", allow: "2002::/16", ok: true},
		{addr: "64:ff9b::a00:1", allow: "64:ff9b::/96", ok: true},
		{addr: "8.8.8.8", plain: true}, {addr: "8.8.8.8", plain: true, allow: "8.8.8.8/32", ok: true},
		{addr: "127.0.0.1", plain: true}, {addr: "127.0.0.1", plain: true, allow: "127.0.0.0/8", ok: true},
	} {
		g := guard{plain: c.plain}
		if c.allow != "" {
			g.allow = []netip.Prefix{netip.MustParsePrefix(c.allow)}
		}
		err := g.check(netip.MustParseAddr(c.addr), "storage.test")
		if (err == nil) != c.ok || (err != nil && !errors.Is(err, errdef.ErrUpstreamInvalid)) {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}

// Nothing of a refused address is reached, not even by a connection that is closed at once.
func TestDialChecksTheResolvedAddress(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan net.Conn)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- conn
		}
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	for _, host := range []string{"127.0.0.1", "localhost"} { // the second is a name until it is dialled
		_, err := guard{}.dial(t.Context(), "tcp", net.JoinHostPort(host, port))
		if !errors.Is(err, errdef.ErrUpstreamInvalid) {
			t.Errorf("%s: got %v", host, err)
		}
	}
	allowed := guard{allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	conn, err := allowed.dial(t.Context(), "tcp", net.JoinHostPort("localhost", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := (<-accepted).RemoteAddr().String(); got != conn.LocalAddr().String() {
		t.Errorf("the first connection is from %s, not from %s", got, conn.LocalAddr())
	}
}
