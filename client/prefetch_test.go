package client_test

import (
	"errors"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"

	"github.com/ocistern/ocistern/client"
)

func TestPrefetch(t *testing.T) {
	f := newFixture(t, 1)
	target := f.cluster.Repository(repositoryName)
	signatures, err := target.Predecessors(t.Context(), f.image)
	if err != nil {
		t.Fatal(err)
	}
	subject := signatures[0] // a chain of referrers, longer than anybody follows
	for range 10 {
		subject, err = oras.PackManifest(t.Context(), target, oras.PackManifestVersion1_1, "text/chain", oras.PackManifestOptions{Subject: &subject})
		if err != nil {
			t.Fatal(err)
		}
	}
	_, repository := f.open(t)
	var read []ocispec.Descriptor
	got, err := repository.Prefetch(t.Context(), "v1", func(d ocispec.Descriptor) { read = append(read, d) })
	if err != nil {
		t.Fatal(err)
	}
	const followed = 3 // of the chain: five levels, less the image and its signatures
	if got.Referrers != 3+followed || got.Blobs != 4 || got.Large != 1 || len(read) != 1+got.Referrers {
		t.Errorf("got %+v, progress on %d artifacts; want 3 signatures and %d further, 3 envelopes and the empty config, 1 large layer",
			got, len(read), followed)
	}
	if calls := f.calls("FetchBlob"); calls != got.Blobs {
		t.Errorf("%d blobs were fetched, want %d, each once and not the large one", calls, got.Blobs)
	}
	if _, err := repository.Prefetch(t.Context(), "nothere", nil); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("absent tag: %v", err)
	}
}
