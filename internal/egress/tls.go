package egress

import (
	"crypto/tls"
	"crypto/x509"
	"sync"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/secretfile"
)

// TLS says how an upstream and a node know each other, beyond the certificates that the system trusts. All files are
// PEM.
type TLS struct {
	// CAFile has certificates of authorities that are trusted besides those of the system, for the upstream and for
	// where it sends us to. It is read at the start.
	CAFile string
	// CertificateFile and KeyFile are the certificate, with its chain, and the key that the node shows the upstream
	// itself, and nobody else. They are read again when they are replaced.
	CertificateFile, KeyFile string
}

// configs returns the TLS settings for the upstream itself and for all others.
func (t TLS) configs() (own, others *tls.Config, err error) {
	others = &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		if others.RootCAs, err = roots(t.CAFile); err != nil {
			return nil, nil, err
		}
	}
	own = others.Clone()
	if t.CertificateFile == "" && t.KeyFile == "" {
		return own, others, nil
	}
	if t.CertificateFile == "" || t.KeyFile == "" {
		return nil, nil, errdef.New(errdef.ConfigInvalid, "a client certificate needs a certificate file and a key file")
	}
	certificate := &clientCertificate{files: t, watch: secretfile.NewWatch(t.CertificateFile, t.KeyFile)}
	if _, err := certificate.get(nil); err != nil {
		return nil, nil, errdef.Wrap(errdef.ConfigInvalid, err, "client certificate")
	}
	own.GetClientCertificate = certificate.get
	return own, others, nil
}

func roots(path string) (*x509.CertPool, error) {
	content, err := secretfile.Read(path)
	if err != nil {
		return nil, errdef.Wrap(errdef.ConfigInvalid, err, "certificates of authorities")
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a container without any
	}
	if !pool.AppendCertsFromPEM(content) {
		return nil, errdef.New(errdef.ConfigInvalid, "%s has no PEM certificate", path)
	}
	return pool, nil
}

// clientCertificate is what its files have now.
type clientCertificate struct {
	files TLS
	watch *secretfile.Watch

	// mu guards the fields below.
	mu       sync.Mutex
	loaded   *tls.Certificate
	revision uint64
}

// get has the signature of tls.Config.GetClientCertificate. It fails with UPSTREAM_UNAUTHORIZED when the files cannot be
// used: the certificate of before may have been withdrawn.
func (c *clientCertificate) get(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	revision := c.watch.Revision()
	if c.loaded != nil && revision == c.revision {
		return c.loaded, nil
	}
	certificate, err := secretfile.Read(c.files.CertificateFile)
	if err != nil {
		return nil, errdef.Wrap(errdef.UpstreamUnauthorized, err, "the client certificate cannot be read")
	}
	key, err := secretfile.Read(c.files.KeyFile)
	if err != nil {
		return nil, errdef.Wrap(errdef.UpstreamUnauthorized, err, "the client key cannot be read")
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, errdef.New(errdef.UpstreamUnauthorized, "%s and %s are no certificate with its key",
			c.files.CertificateFile, c.files.KeyFile)
	}
	c.loaded, c.revision = &pair, revision
	return c.loaded, nil
}
