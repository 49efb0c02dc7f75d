package egress

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
)

func writePEM(t *testing.T, path, kind string, der []byte) string {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// authorityOf writes the certificate of a server, which is its own authority.
func authorityOf(t *testing.T, s *server) string {
	t.Helper()
	return writePEM(t, filepath.Join(t.TempDir(), "ca.pem"), "CERTIFICATE", s.Certificate().Raw)
}

// writeCertificate writes a new client certificate over files.
func writeCertificate(t *testing.T, files TLS, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, files.CertificateFile, "CERTIFICATE", certificate)
	writePEM(t, files.KeyFile, "PRIVATE KEY", private)
}

func TestAuthorities(t *testing.T) {
	upstream := newServer(t, httptest.NewTLSServer, nil)
	var untrusted *tls.CertificateVerificationError
	if err := get(t, client(t, upstream.URL, Config{}), upstream.URL); !errors.As(err, &untrusted) {
		t.Errorf("an unknown authority: got %v", err)
	}
	c := client(t, upstream.URL, Config{TLS: TLS{CAFile: authorityOf(t, upstream)}})
	if err := get(t, c, upstream.URL); err != nil {
		t.Errorf("a configured authority: got %v", err)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	upstream := newServer(t, func(handler http.Handler) *httptest.Server {
		s := httptest.NewUnstartedServer(handler)
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
		s.StartTLS()
		return s
	}, nil)
	if err := get(t, client(t, upstream.URL, Config{TLS: TLS{CAFile: authorityOf(t, upstream)}}), upstream.URL); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

// asking starts a TLS server that asks for a client certificate and takes any, or none.
func asking(handler http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(handler)
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	return s
}

// The upstream sees the certificate that the files have now; whom it sends us to sees none.
func TestClientCertificates(t *testing.T) {
	shown := func(s *server) string {
		if seen := s.last.Load().TLS.PeerCertificates; len(seen) > 0 {
			return seen[0].Subject.CommonName
		}
		return ""
	}
	storage := newServer(t, asking, nil)
	upstream := newServer(t, asking, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/storage" {
			http.Redirect(w, req, storage.URL, http.StatusFound)
		}
	})
	dir := t.TempDir()
	files := TLS{
		CAFile: authorityOf(t, upstream), CertificateFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"),
	}
	writeCertificate(t, files, "one")
	c := client(t, upstream.URL, Config{TLS: files, Allow: loopback()})
	ask := func(path string) error {
		c.Transport.(*Transport).CloseIdleConnections()
		return get(t, c, upstream.URL+path)
	}
	if err := ask("/"); err != nil || shown(upstream) != "one" {
		t.Errorf("got %v, the upstream saw %q", err, shown(upstream))
	}
	if err := ask("/storage"); err != nil || shown(storage) != "" {
		t.Errorf("got %v, the storage host saw %q", err, shown(storage))
	}
	writeCertificate(t, files, "two!")
	if err := ask("/"); err != nil || shown(upstream) != "two!" {
		t.Errorf("replaced: got %v, the upstream saw %q", err, shown(upstream))
	}
	if err := os.Remove(files.KeyFile); err != nil {
		t.Fatal(err)
	}
	if err := ask("/"); !errors.Is(err, errdef.ErrUpstreamUnauthorized) {
		t.Errorf("without a key: got %v", err)
	}
	writePEM(t, files.KeyFile, "PRIVATE KEY", []byte("planted"))
	if err := ask("/"); !errors.Is(err, errdef.ErrUpstreamUnauthorized) {
		t.Errorf("with a broken key: got %v", err)
	}
	writeCertificate(t, files, "three")
	if err := ask("/"); err != nil || shown(upstream) != "three" {
		t.Errorf("repaired: got %v, the upstream saw %q", err, shown(upstream))
	}
}

func TestTLSFilesThatCannotBeUsed(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken.pem")
	if err := os.WriteFile(broken, []byte("planted"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, files := range []TLS{
		{CAFile: broken}, {CAFile: broken + ".none"}, {CertificateFile: broken}, {KeyFile: broken},
		{CertificateFile: broken, KeyFile: broken}, {CertificateFile: broken, KeyFile: broken + ".none"},
	} {
		if _, err := New(Config{URL: parse(t, "https://registry.test"), TLS: files}); !errors.Is(err, errdef.ErrConfigInvalid) {
			t.Errorf("%+v: got %v", files, err)
		}
	}
}
