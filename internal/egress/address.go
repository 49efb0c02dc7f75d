package egress

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
)

const (
	dialTimeout = 5 * time.Second
	keepAlive   = 30 * time.Second
)

// special is a range of addresses that are not on the public internet.
type special struct {
	prefix netip.Prefix
	kind   string
}

// specials are the ranges of the IANA registries of special-purpose addresses, and what a cloud serves its metadata at
// outside of them. Those of IPv6 lie within 2000::/3, outside of which nothing is public.
func specials() []special {
	named := func(kind string, prefixes ...string) (list []special) {
		for _, prefix := range prefixes {
			list = append(list, special{netip.MustParsePrefix(prefix), kind})
		}
		return list
	}
	var all []special
	for _, group := range [][]special{
		named("an unspecified address", "0.0.0.0/8"),
		named("a loopback address", "127.0.0.0/8"),
		named("a link-local address", "169.254.0.0/16"),
		named("a private address", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
		named("a metadata address", "168.63.129.16/32"),
		named("a multicast address", "224.0.0.0/4"),
		named("a reserved address", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24",
			"203.0.113.0/24", "240.0.0.0/4", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
	} {
		all = append(all, group...)
	}
	return all
}

// Where an IPv4 address may hide in one of IPv6, besides ::ffff:0:0/96. NAT64 is how hosts without IPv4 reach the
// rest of the internet. Teredo and 6to4 are refused with 2001::/23 and 2002::/16.
var (
	nat64  = netip.MustParsePrefix("64:ff9b::/96")
	public = netip.MustParsePrefix("2000::/3")
)

// reached returns the address that is reached in the end.
func reached(addr netip.Addr) netip.Addr {
	if nat64.Contains(addr) {
		bytes := addr.As16()
		return netip.AddrFrom4([4]byte(bytes[12:]))
	}
	return addr
}

// kindOf says what an address is; "" for one on the public internet.
func kindOf(addr netip.Addr) string {
	for _, s := range specials() {
		if s.prefix.Contains(addr) {
			return s.kind
		}
	}
	switch {
	case addr.Is4(), public.Contains(addr):
		return ""
	case addr.IsLoopback():
		return "a loopback address"
	case addr.IsLinkLocalUnicast():
		return "a link-local address"
	case addr.IsPrivate():
		return "a private address"
	}
	return "not a public address"
}

// guard decides which addresses may be reached. It is immutable.
type guard struct {
	allow []netip.Prefix
	plain bool // without TLS: only what is allowed
}

// check returns an error of reason UPSTREAM_INVALID for an address that may not be reached. It names the host that
// led there and the kind of address, but not the address: that is not for whoever reads the error.
func (g guard) check(addr netip.Addr, host string) error {
	given := addr.Unmap().WithZone("")
	addr = reached(given)
	for _, prefix := range g.allow {
		if prefix.Contains(addr) || prefix.Contains(given) {
			return nil
		}
	}
	if kind := kindOf(addr); kind != "" {
		return errdef.New(errdef.UpstreamInvalid, "it sends us to %.100q, which is %s", host, kind).
			WithRemedy("if it is genuine, add its address to allow-addresses of the upstream")
	}
	if g.plain {
		return errdef.New(errdef.UpstreamInvalid, "it sends us to %.100q over plain HTTP", host).
			WithRemedy("if it is genuine, add its address to allow-addresses of the upstream")
	}
	return nil
}

// dial connects to an address that may be reached. The check is on the address that the connection goes to, after the
// name was resolved: a name that has another meaning the next time gets no further.
func (g guard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}
	dialer.ControlContext = func(_ context.Context, _, resolved string, _ syscall.RawConn) error {
		final, err := netip.ParseAddrPort(resolved)
		if err != nil {
			return errdef.New(errdef.UpstreamInvalid, "it sends us to %.100q, which is no TCP address", address)
		}
		return g.check(final.Addr(), address)
	}
	return dialer.DialContext(ctx, network, address)
}

// checkNamed is the check where a proxy resolves the name and connects. It sees what this node sees: a name that this
// node cannot resolve is left to the proxy, whose own rules are the barrier then.
func (g guard) checkNamed(ctx context.Context, host string) error {
	if literal, err := netip.ParseAddr(host); err == nil {
		return g.check(literal, host)
	}
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	for _, addr := range addresses {
		if err := g.check(addr, host); err != nil {
			return err
		}
	}
	if len(addresses) == 0 && g.plain {
		return errdef.New(errdef.UpstreamInvalid, "it sends us to %.100q over plain HTTP", host)
	}
	return nil
}

// dialConfigured connects to what the configuration names.
func dialConfigured(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}).DialContext(ctx, network, address)
}
