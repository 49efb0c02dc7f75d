package egress

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
)

func direct(*http.Request) (*url.URL, error) { return nil, nil }

func parse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// client returns a client for the upstream at a URL.
func client(t *testing.T, upstream string, config Config) *http.Client {
	t.Helper()
	config.URL = parse(t, upstream)
	if config.Proxy == nil {
		config.Proxy = direct
	}
	transport, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: transport.CheckRedirect}
}

func loopback() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

// server is a test server that counts its requests and keeps the headers of the last.
type server struct {
	*httptest.Server
	asked atomic.Int32
	last  atomic.Pointer[http.Request]
}

// newServer starts a server; start is one of httptest's two ways.
func newServer(t *testing.T, start func(http.Handler) *httptest.Server, handler http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = start(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.asked.Add(1)
		s.last.Store(req)
		if handler != nil {
			handler(w, req)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func redirectTo(target *string) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, *target, http.StatusTemporaryRedirect)
	}
}

// patience is how long a test waits for an answer.
const patience = 30 * time.Second

// get asks, with credentials, and returns the error.
func get(t *testing.T, c *http.Client, address string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer planted")
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// Where an upstream sends us is reached only if it is configured; the upstream itself always.
func TestRedirectsToAddressesThatAreNotPublic(t *testing.T) {
	for _, c := range []struct {
		name      string
		allow     []netip.Prefix
		localhost bool // the target is named, not numbered
		tls       bool
		ok        bool
	}{
		{name: "refused over TLS", tls: true},
		{name: "allowed over TLS", tls: true, allow: loopback(), ok: true},
		{name: "refused"},
		{name: "refused by name", localhost: true},
		{name: "allowed", allow: loopback(), ok: true},
		{name: "allowed by name", allow: loopback(), localhost: true, ok: true},
		{name: "another is allowed", allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			start, files := httptest.NewServer, TLS{}
			if c.tls {
				start = httptest.NewTLSServer
			}
			storage := newServer(t, start, nil)
			if c.tls {
				files.CAFile = authorityOf(t, storage)
			}
			target := storage.URL
			if c.localhost {
				target = strings.Replace(target, "127.0.0.1", "localhost", 1)
			}
			upstream := newServer(t, start, redirectTo(&target))
			err := get(t, client(t, upstream.URL, Config{Allow: c.allow, TLS: files}), upstream.URL)
			if (err == nil) != c.ok || (err != nil && !errors.Is(err, errdef.ErrUpstreamInvalid)) {
				t.Errorf("got %v", err)
			}
			if reached := storage.asked.Load() > 0; reached != c.ok || upstream.asked.Load() != 1 {
				t.Errorf("the target was asked: %v, the upstream %d times", reached, upstream.asked.Load())
			}
			if c.ok && storage.last.Load().Header.Get("Authorization") != "" {
				t.Error("the target saw our credentials")
			}
		})
	}
}

// TLS is never left; without TLS only what is configured is reached.
func TestPlainHTTP(t *testing.T) {
	storage := newServer(t, httptest.NewServer, nil)
	upstream := newServer(t, httptest.NewTLSServer, redirectTo(&storage.URL))
	c := client(t, upstream.URL, Config{Allow: loopback(), TLS: TLS{CAFile: authorityOf(t, upstream)}})
	if err := get(t, c, upstream.URL); !errors.Is(err, errdef.ErrUpstreamInvalid) {
		t.Errorf("from HTTPS to HTTP: got %v", err)
	}
	if err := get(t, c, storage.URL); !errors.Is(err, errdef.ErrUpstreamInvalid) { // as a token service
		t.Errorf("HTTP for an upstream over HTTPS: got %v", err)
	}
	if storage.asked.Load() != 0 {
		t.Error("the target was asked")
	}
	bare := newServer(t, httptest.NewServer, nil)
	for _, target := range []string{strings.Replace(bare.URL, "http:", "ftp:", 1), "http://8.8.8.8/", "http://[2606:4700::1]/"} {
		if err := get(t, client(t, bare.URL, Config{}), target); !errors.Is(err, errdef.ErrUpstreamInvalid) {
			t.Errorf("%s for an upstream over HTTP: got %v", target, err)
		}
	}
}

func TestRedirectsAreBounded(t *testing.T) {
	for _, hops := range []int{maxRedirects, maxRedirects + 1} {
		upstream := newServer(t, httptest.NewServer, func(w http.ResponseWriter, req *http.Request) {
			if n, _ := strconv.Atoi(strings.TrimPrefix(req.URL.Path, "/")); n < hops {
				http.Redirect(w, req, "/"+strconv.Itoa(n+1), http.StatusFound)
			}
		})
		err := get(t, client(t, upstream.URL, Config{}), upstream.URL+"/0")
		if tooMany := hops > maxRedirects; tooMany != errors.Is(err, errdef.ErrUpstreamInvalid) {
			t.Errorf("%d redirects: got %v", hops, err)
		}
		if asked := upstream.asked.Load(); asked != maxRedirects+1 {
			t.Errorf("%d redirects: asked %d times", hops, asked)
		}
		if upstream.last.Load().Header.Get("Authorization") == "" {
			t.Error("the upstream itself does not see the credentials after a redirect")
		}
	}
}

func TestWhatGoesAlongWithARedirect(t *testing.T) {
	transport, err := New(Config{URL: parse(t, "https://registry.test")})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		hops  []string
		body  bool
		keeps bool
		fails bool
	}{
		{"same host", []string{"https://registry.test/a", "https://registry.test/b"}, false, true, false},
		{"default port", []string{"https://registry.test/a", "https://REGISTRY.test:443/b"}, true, true, false},
		{"subdomain", []string{"https://registry.test/a", "https://cdn.registry.test/b"}, false, false, false},
		{"port", []string{"https://registry.test/a", "https://registry.test:8443/b"}, false, false, false},
		{"scheme", []string{"http://registry.test:1/a", "https://registry.test:1/b"}, false, false, false},
		{"there and back", []string{"https://registry.test/a", "https://cdn.test/b", "https://registry.test/c"}, false, false, false},
		{"body", []string{"https://token.test/a", "https://other.test/b"}, true, false, true},
		{"password", []string{"https://registry.test/a", "https://me:planted@registry.test/b"}, false, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var chain []*http.Request
			for _, hop := range c.hops {
				req := httptest.NewRequest(http.MethodGet, hop, nil)
				req.Header.Set("Authorization", "Bearer planted")
				req.Header.Set("Referer", "https://registry.test/a?signature=planted")
				if c.body {
					req.Body = io.NopCloser(strings.NewReader("refresh_token=planted"))
				}
				chain = append(chain, req)
			}
			last := chain[len(chain)-1]
			err := transport.CheckRedirect(last, chain[:len(chain)-1])
			if (err != nil) != c.fails || (err != nil && !errors.Is(err, errdef.ErrUpstreamInvalid)) {
				t.Fatalf("got %v", err)
			}
			if kept := last.Header.Get("Authorization") != ""; !c.fails && kept != c.keeps {
				t.Errorf("credentials go along: %v", kept)
			}
			if !c.fails && last.Header.Get("Referer") != "" {
				t.Error("the page before goes along")
			}
		})
	}
}

func TestHeadersAreBounded(t *testing.T) {
	stop := make(chan struct{})
	upstream := newServer(t, httptest.NewServer, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			<-stop
		}
		for n := range 2 * maxHeaderBytes / 1000 {
			w.Header().Set("X-"+strconv.Itoa(n), strings.Repeat("x", 1000))
		}
	})
	defer close(stop)
	began := time.Now()
	err := get(t, client(t, upstream.URL, Config{HeaderTimeout: 50 * time.Millisecond}), upstream.URL+"/slow")
	if took := time.Since(began); err == nil || took > patience/2 {
		t.Errorf("slow headers: got %v after %s", err, took)
	}
	if err := get(t, client(t, upstream.URL, Config{}), upstream.URL+"/large"); err == nil {
		t.Error("large headers: no error")
	}
}

// A proxy may be anywhere. What it is asked for is checked before, as far as this node can resolve it.
func TestProxy(t *testing.T) {
	proxy := newServer(t, httptest.NewServer, nil) // answers whatever it is asked for
	throughProxy := func(*http.Request) (*url.URL, error) { return parse(t, proxy.URL), nil }
	for _, c := range []struct {
		target string
		allow  []netip.Prefix
		ok     bool
	}{
		{target: "http://registry.internal/", ok: true},
		{target: "http://127.0.0.1:1/"},
		{target: "http://localhost:1/"},
		{target: "http://[::ffff:7f00:1]:1/"},
		{target: "http://127.0.0.1:1/", allow: loopback(), ok: true},
		{target: "http://name.invalid/"}, // over plain HTTP
		{target: "http://8.8.8.8/"},
	} {
		before := proxy.asked.Load()
		err := get(t, client(t, "http://registry.internal", Config{Proxy: throughProxy, Allow: c.allow}), c.target)
		if reached := proxy.asked.Load() > before; reached != c.ok || (err == nil) != c.ok {
			t.Errorf("%+v: the proxy was asked: %v, got %v", c, reached, err)
		}
	}
	if err := (guard{}).checkNamed(t.Context(), "name.invalid"); err != nil {
		t.Errorf("a name that only the proxy can resolve: got %v", err)
	}
}
