package upstream_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/ocistern/ocistern/e2e/upstream"
)

// content is what the registries hold in these tests, under blobs/<digest>.
var content = []byte(strings.Repeat("a body long enough to be cut in two. ", 100))

func TestEachRegistryCountsHarmsAndReturns(t *testing.T) {
	for _, software := range []upstream.Software{upstream.Distribution, upstream.ContainerRegistry} {
		t.Run(string(software), func(t *testing.T) {
			registry := start(t, software)
			address := registry.URL() + "/v2/some/app/blobs/" + digest.FromBytes(content).String()

			read(t, address, nil)
			read(t, address, nil)
			if got := registry.Ledger.Count(upstream.Blob); got != 2 {
				t.Errorf("counted %d reads, want 2", got)
			}
			if err := registry.Ledger.Repeated(); err == nil {
				t.Error("two reads of one object were not noticed")
			}

			for harm, harmed := range map[upstream.Harm]func(int, []byte, error) bool{
				upstream.Status(503): func(status int, _ []byte, _ error) bool { return status == 503 },
				upstream.WrongBytes: func(_ int, body []byte, err error) bool {
					return err == nil && len(body) == len(content) && !bytes.Equal(body, content)
				},
				upstream.Truncated: func(_ int, body []byte, err error) bool { return err != nil && len(body) < len(content) },
				upstream.Stalled: func(_ int, body []byte, err error) bool {
					return errors.Is(err, context.DeadlineExceeded) && len(body) < len(content)
				},
			} {
				registry.Inject(upstream.Fault{Kind: upstream.Blob, Harm: harm, Times: 1})
				read(t, address, harmed)
				read(t, address, nil) // only once
			}

			if err := registry.Stop(); err != nil {
				t.Fatal(err)
			}
			read(t, address, func(_ int, _ []byte, err error) bool { return err != nil })
			if err := registry.Resume(); err != nil {
				t.Fatal(err)
			}
			read(t, address, nil)
		})
	}
}

// A tag and the digest it points at are one object.
func TestTagAndDigestAreOneObject(t *testing.T) {
	registry := start(t, upstream.ContainerRegistry)
	repository := repository(t, registry)
	manifest, err := oras.PackManifest(t.Context(), repository, oras.PackManifestVersion1_1, "text/plain",
		oras.PackManifestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := repository.Tag(t.Context(), manifest, "v1"); err != nil {
		t.Fatal(err)
	}
	registry.Ledger.Reset()
	for _, reference := range []string{"v1", manifest.Digest.String()} {
		if _, err := repository.Resolve(t.Context(), reference); err != nil {
			t.Fatal(err)
		}
	}
	err = registry.Ledger.Repeated()
	if err == nil || !strings.Contains(err.Error(), "2 times manifest some/app sha256:") {
		t.Errorf("got %v, want the manifest to be named as asked for twice", err)
	}
}

// read fetches address with a short deadline. harmed judges the outcome; nil wants the content.
func read(t *testing.T, address string, harmed func(status int, body []byte, err error) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	status, body, err := get(ctx, address)
	if harmed == nil {
		if err != nil || status != http.StatusOK || !bytes.Equal(body, content) {
			t.Errorf("got status %d, %d bytes and error %v; want the content", status, len(body), err)
		}
		return
	}
	if !harmed(status, body, err) {
		t.Errorf("got status %d, %d bytes and error %v; want it harmed", status, len(body), err)
	}
}

func get(ctx context.Context, address string) (int, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, body, err
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
	if _, err := oras.PushBytes(t.Context(), repository(t, registry), "text/plain", content); err != nil {
		t.Fatal(err)
	}
	return registry
}

func repository(t *testing.T, registry *upstream.Registry) *remote.Repository {
	t.Helper()
	repository, err := remote.NewRepository(registry.Host() + "/some/app")
	if err != nil {
		t.Fatal(err)
	}
	repository.PlainHTTP = true
	return repository
}
