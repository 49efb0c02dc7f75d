// Package egress is the way out of a node: HTTP to one upstream registry, and to where that registry sends us, which is
// a token service or a storage host. The upstream is configured and is trusted with a connection; where it sends us is
// the word of a stranger. So others are reached only at public addresses or at those that are configured, over TLS, and
// are shown nothing of ours.
//
// It does not authenticate (package fill does, with oras-go) and does not retry.
package egress

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
)

const (
	maxRedirects      = 5
	maxHeaderBytes    = 256 << 10
	handshakeTimeout  = 5 * time.Second
	idleTimeout       = 90 * time.Second
	idleConnections   = 32 // to one host
	schemeHTTP        = "http"
	schemeHTTPS       = "https"
	defaultHTTPPort   = "80"
	defaultHTTPSPort  = "443"
	continueTimeout   = time.Second
	headerReferer     = "Referer"
	headerCredentials = "Authorization"
)

// Config says where an upstream is and what may be reached because of it.
type Config struct {
	// URL has the scheme and host of the upstream. Plain HTTP is spoken only when the scheme is http.
	URL *url.URL
	TLS TLS
	// Allow has addresses that redirects and token services may be at although they are not public, and, for an
	// upstream over plain HTTP, the only ones that may be reached over plain HTTP besides the upstream itself.
	Allow []netip.Prefix
	// HeaderTimeout is how long an answer's headers may take; 0 for ever.
	HeaderTimeout time.Duration
	// Proxy returns the proxy for a request, or nil. Default http.ProxyFromEnvironment. A proxy may be at any address.
	Proxy func(*http.Request) (*url.URL, error)
}

// Transport is the way out for one upstream. It is safe for concurrent use. Give it to a http.Client together with its
// CheckRedirect.
type Transport struct {
	upstream origin
	proxy    func(*http.Request) (*url.URL, error)
	guard    guard
	bare     guard // for plain HTTP

	own     *http.Transport // to the upstream, directly or through the proxy
	others  *http.Transport // to others
	plain   *http.Transport // to others without TLS
	proxied *http.Transport // to others through the proxy
}

// New returns a Transport. It fails with CONFIG_INVALID when a TLS file cannot be used.
func New(config Config) (*Transport, error) {
	own, others, err := config.TLS.configs()
	if err != nil {
		return nil, err
	}
	if config.Proxy == nil {
		config.Proxy = http.ProxyFromEnvironment
	}
	t := &Transport{
		upstream: originOf(config.URL), proxy: config.Proxy,
		guard: guard{allow: config.Allow}, bare: guard{allow: config.Allow, plain: true},
	}
	t.own, t.others, t.plain, t.proxied =
		config.transport(own), config.transport(others), config.transport(others), config.transport(others)
	t.own.DialContext, t.own.Proxy = dialConfigured, config.Proxy
	t.others.DialContext = t.guard.dial
	t.plain.DialContext = t.bare.dial
	t.proxied.DialContext, t.proxied.Proxy = dialConfigured, config.Proxy
	return t, nil
}

func (c Config) transport(security *tls.Config) *http.Transport {
	return &http.Transport{
		TLSClientConfig: security, ForceAttemptHTTP2: true, TLSHandshakeTimeout: handshakeTimeout,
		MaxIdleConnsPerHost: idleConnections, IdleConnTimeout: idleTimeout, ExpectContinueTimeout: continueTimeout,
		ResponseHeaderTimeout: c.HeaderTimeout, MaxResponseHeaderBytes: maxHeaderBytes,
		// Bytes are passed on as the upstream has them: no transparent decompression, no lost Content-Length.
		DisableCompression: true,
	}
}

// RoundTrip implements http.RoundTripper. It fails with UPSTREAM_INVALID for a request that may not be made.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	way, err := t.way(req)
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	return way.RoundTrip(req)
}

// way chooses how a request leaves.
func (t *Transport) way(req *http.Request) (*http.Transport, error) {
	target := originOf(req.URL)
	if target == t.upstream {
		return t.own, nil
	}
	direct, rules := t.others, t.guard
	if target.scheme != schemeHTTPS {
		if target.scheme != schemeHTTP || t.upstream.scheme != schemeHTTP {
			return nil, errdef.New(errdef.UpstreamInvalid, "it sends us from HTTPS to %.20q", target.scheme)
		}
		direct, rules = t.plain, t.bare
	}
	proxy, err := t.proxy(req)
	if err != nil {
		return nil, errdef.New(errdef.UpstreamUnavailable, "the proxy is not well configured")
	}
	if proxy == nil {
		return direct, nil
	}
	return t.proxied, rules.checkNamed(req.Context(), req.URL.Hostname())
}

// CheckRedirect is for http.Client. It bounds redirects, and lets nothing that is ours, nor the address of the page
// before, go along to another scheme, host or port, not even when a later redirect leads back.
func (t *Transport) CheckRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errdef.New(errdef.UpstreamInvalid, "it redirected more than %d times", maxRedirects)
	}
	if req.URL.User != nil {
		return errdef.New(errdef.UpstreamInvalid, "it redirected to a URL with a password")
	}
	req.Header.Del(headerReferer)
	first := originOf(via[0].URL)
	for _, hop := range append(via[1:len(via):len(via)], req) {
		if originOf(hop.URL) == first {
			continue
		}
		req.Header.Del(headerCredentials)
		if req.Body != nil && req.Body != http.NoBody { // a 307 sends it again: the body of a token request has a token
			return errdef.New(errdef.UpstreamInvalid, "its token service redirected to another host")
		}
		return nil
	}
	return nil
}

// CloseIdleConnections closes the connections that no request uses.
func (t *Transport) CloseIdleConnections() {
	for _, way := range []*http.Transport{t.own, t.others, t.plain, t.proxied} {
		way.CloseIdleConnections()
	}
}

// origin is what two URLs must share to be one place.
type origin struct{ scheme, host, port string }

func originOf(u *url.URL) origin {
	o := origin{strings.ToLower(u.Scheme), strings.ToLower(u.Hostname()), u.Port()}
	switch {
	case o.port != "":
	case o.scheme == schemeHTTPS:
		o.port = defaultHTTPSPort
	case o.scheme == schemeHTTP:
		o.port = defaultHTTPPort
	}
	return o
}
