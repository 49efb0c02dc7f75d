package signed_test

import (
	"context"
	"strings"
	"testing"

	"oras.land/oras-go/v2/registry/remote"

	"github.com/ocistern/ocistern/e2e/signed"
	"github.com/ocistern/ocistern/e2e/upstream"
)

// One verification of an image with five signatures is 17 operations of the registry that has a referrers API, none of
// them twice: the figure that the demo and the plan's first table start from.
func TestDirectVerificationIsSeventeenOperations(t *testing.T) {
	registry, signers := start(t, upstream.ContainerRegistry), makeSigners(t, 5)
	push(t, registry, signers)
	registry.Ledger.Reset()
	verify(t, registry, signers)
	if count := registry.Ledger.Count(); count != 17 {
		t.Errorf("direct verification made %d requests, want 17: %v", count, registry.Ledger.Requests())
	}
	if err := registry.Ledger.Repeated(); err != nil {
		t.Error(err)
	}
}

func TestVerifyWithoutReferrersAPI(t *testing.T) {
	registry, signers := start(t, upstream.Distribution), makeSigners(t, 2)
	push(t, registry, signers)
	registry.Ledger.Reset()
	verify(t, registry, signers)
	if registry.Ledger.Count(upstream.Referrers) == 0 {
		t.Error("the referrers API was never tried")
	}
}

// The verifier can fail: a signer that has not signed, and a signature whose bytes were changed, are both refused.
func TestVerifyRefuses(t *testing.T) {
	registry, signers := start(t, upstream.ContainerRegistry), makeSigners(t, 2)
	push(t, registry, signers[:1])
	for name, c := range map[string]struct {
		signers []*signed.Signer
		fault   upstream.Fault
		want    string
	}{
		"a missing signer": {signers: signers, want: "required signers have not been seen"},
		"changed bytes": {
			signers: signers[:1], fault: upstream.Fault{Kind: upstream.Blob, Harm: upstream.WrongBytes}, want: "mismatch",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.fault.Harm != "" {
				registry.Inject(c.fault)
				defer registry.Heal()
			}
			verifier, err := signed.NewVerifier(c.signers...)
			if err != nil {
				t.Fatal(err)
			}
			_, err = verifier.Verify(t.Context(), repository(t, registry), registry.Host()+"/demo/app:v1")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func start(t *testing.T, software upstream.Software) *upstream.Registry {
	t.Helper()
	registry, err := upstream.Start(upstream.Options{Software: software})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registry.Close(); err != nil {
			t.Error(err)
		}
	})
	return registry
}

func makeSigners(t *testing.T, n int) []*signed.Signer {
	t.Helper()
	var signers []*signed.Signer
	for _, name := range []string{"build", "security", "quality", "release", "platform"}[:n] {
		signer, err := signed.NewSigner(name)
		if err != nil {
			t.Fatal(err)
		}
		signers = append(signers, signer)
	}
	return signers
}

func repository(t *testing.T, registry *upstream.Registry) *remote.Repository {
	t.Helper()
	repository, err := remote.NewRepository(registry.Host() + "/demo/app")
	if err != nil {
		t.Fatal(err)
	}
	repository.PlainHTTP = true
	return repository
}

func push(t *testing.T, registry *upstream.Registry, signers []*signed.Signer) {
	t.Helper()
	image := signed.Image{Tag: "v1", Layers: []int{10, 1000}, Signers: signers}
	if _, err := signed.Push(context.Background(), repository(t, registry), image); err != nil {
		t.Fatal(err)
	}
}

func verify(t *testing.T, registry *upstream.Registry, signers []*signed.Signer) {
	t.Helper()
	verifier, err := signed.NewVerifier(signers...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifier.Verify(t.Context(), repository(t, registry), registry.Host()+"/demo/app:v1"); err != nil {
		t.Fatal(err)
	}
}
