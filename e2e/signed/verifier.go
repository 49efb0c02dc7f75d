package signed

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"sync"

	"github.com/notaryproject/notation-go"
	notationregistry "github.com/notaryproject/notation-go/registry"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/registry"
)

// maxSignatures bounds how many signatures of one image are looked at.
const maxSignatures = 50

// Verifier holds a trust policy: an image is trusted when every one of a set of signers has signed it. It is safe for
// concurrent use.
type Verifier struct {
	notation notation.Verifier
	required map[string]bool // fingerprints of the certificates that must have signed
}

// NewVerifier returns a Verifier that requires a signature of each of the signers, under notation's strict level.
func NewVerifier(signers ...*Signer) (*Verifier, error) {
	var trusted certificates
	required := map[string]bool{}
	for _, s := range signers {
		trusted = append(trusted, s.certificate)
		required[string(s.certificate.Raw)] = true
	}
	policy := &trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{{
		Name:                  "all-signers",
		RegistryScopes:        []string{"*"},
		SignatureVerification: trustpolicy.SignatureVerification{VerificationLevel: trustpolicy.LevelStrict.Name},
		TrustStores:           []string{"ca:signers"},
		TrustedIdentities:     []string{"*"},
	}}}
	made, err := verifier.New(policy, trusted, nil)
	if err != nil {
		return nil, fmt.Errorf("notation verifier: %w", err)
	}
	return &Verifier{notation: made, required: required}, nil
}

// Verify makes the registry operations of one admission, as Ratify does for an image with nested verification: it
// resolves the reference once, lists the signatures, fetches manifest and envelope of each and verifies it (all that is
// notation.Verify), and then lists the referrers of each signature. With n signatures these are 2+3n operations.
//
// reference is host/repository:tag or @digest; target serves that repository.
func (v *Verifier) Verify(ctx context.Context, target oras.GraphTarget, reference string) (ocispec.Descriptor, error) {
	named, err := registry.ParseReference(reference)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("verify: %w", err)
	}
	image, err := target.Resolve(ctx, named.Reference)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("resolve %s: %w", reference, err)
	}
	named.Reference = image.Digest.String() // notation's trust policies apply to digests only
	repository := &resolved{Repository: notationregistry.NewRepository(target), image: image}
	_, _, err = notation.Verify(ctx, &everySigner{policy: v, missing: maps.Clone(v.required)}, repository,
		notation.VerifyOptions{ArtifactReference: named.String(), MaxSignatureAttempts: maxSignatures})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("verify %s: %w", reference, err)
	}
	for _, signature := range repository.signatures {
		if _, err := target.Predecessors(ctx, signature); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("referrers of signature %s: %w", signature.Digest, err)
		}
	}
	return image, nil
}

// everySigner lets notation.Verify, which stops at the first good signature, go on until every signer was seen.
type everySigner struct {
	policy  *Verifier
	mu      sync.Mutex // guards missing
	missing map[string]bool
}

// Verify implements notation.Verifier.
func (e *everySigner) Verify(
	ctx context.Context, image ocispec.Descriptor, envelope []byte, options notation.VerifierVerifyOptions,
) (*notation.VerificationOutcome, error) {
	outcome, err := e.policy.notation.Verify(ctx, image, envelope, options)
	if err != nil {
		return outcome, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.missing, string(outcome.EnvelopeContent.SignerInfo.CertificateChain[0].Raw))
	if len(e.missing) > 0 {
		outcome.Error = fmt.Errorf("%d required signers have not been seen yet", len(e.missing))
		return outcome, outcome.Error
	}
	return outcome, nil
}

// resolved answers for the image from what is known, and remembers the signatures that notation found, so that neither
// is asked for again.
type resolved struct {
	notationregistry.Repository
	image      ocispec.Descriptor
	signatures []ocispec.Descriptor
}

// Resolve implements notationregistry.Repository.
func (r *resolved) Resolve(context.Context, string) (ocispec.Descriptor, error) { return r.image, nil }

// ListSignatures implements notationregistry.Repository.
func (r *resolved) ListSignatures(
	ctx context.Context, image ocispec.Descriptor, handle func([]ocispec.Descriptor) error,
) error {
	return r.Repository.ListSignatures(ctx, image, func(page []ocispec.Descriptor) error {
		r.signatures = append(r.signatures, page...)
		return handle(page)
	})
}

// certificates is a trust store in memory.
type certificates []*x509.Certificate

// GetCertificates implements truststore.X509TrustStore.
func (c certificates) GetCertificates(context.Context, truststore.Type, string) ([]*x509.Certificate, error) {
	return c, nil
}
