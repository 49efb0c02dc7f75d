// Package signed makes images that carry notation signatures, and verifies them with notation-go's own Verify over
// whatever oras-go target serves them: a registry, or a cache in front of it.
//
// Keys and certificates are made on the spot and live in memory only. The e2e scripts, tests and the demo use it.
package signed

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/notaryproject/notation-go"
	notationregistry "github.com/notaryproject/notation-go/registry"
	"github.com/notaryproject/notation-go/signer"
	"oras.land/oras-go/v2"
)

// Signer signs with one self-signed certificate of its own.
type Signer struct {
	name        string
	certificate *x509.Certificate
	signer      notation.Signer
}

// NewSigner draws a key and makes a code signing certificate for it, valid for a day.
func NewSigner(name string) (*Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("draw a key: %w", err)
	}
	now := time.Now()
	subject := pkix.Name{ // notation wants country, province and organization
		CommonName: name, Country: []string{"EU"}, Province: []string{"Test"}, Organization: []string{"Ocistern"},
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      subject,
		NotBefore:    now.Add(-time.Minute),
		NotAfter:     now.Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	encoded, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the certificate of %s: %w", name, err)
	}
	certificate, err := x509.ParseCertificate(encoded)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of %s: %w", name, err)
	}
	notationSigner, err := signer.NewGenericSigner(key, []*x509.Certificate{certificate})
	if err != nil {
		return nil, fmt.Errorf("notation signer of %s: %w", name, err)
	}
	return &Signer{name: name, certificate: certificate, signer: notationSigner}, nil
}

// Sign signs what reference points at in target, and pushes the signature there as a referrer.
func (s *Signer) Sign(ctx context.Context, target oras.GraphTarget, reference string) error {
	_, err := notation.Sign(ctx, s.signer, notationregistry.NewRepository(target), notation.SignOptions{
		SignerSignOptions: notation.SignerSignOptions{SignatureMediaType: jws.MediaTypeEnvelope},
		ArtifactReference: reference,
	})
	if err != nil {
		return fmt.Errorf("%s signs %s: %w", s.name, reference, err)
	}
	return nil
}
