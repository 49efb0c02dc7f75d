package registry_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/policy"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
	"github.com/ocistern/ocistern/internal/registry/registrytest"
)

func TestCache(t *testing.T) {
	registrytest.Run(t, func(_ *testing.T, r registry.Registry) registry.Registry { return r })
}

func TestObserved(t *testing.T) {
	registrytest.Run(t, func(_ *testing.T, r registry.Registry) registry.Registry {
		return registry.Observed(r, func(registry.Observation) {})
	})
}

// forgiving is the bug that G5 forbids: it takes a failure for "there are none".
type forgiving struct{ registry.Registry }

func (f forgiving) Referrers(
	ctx context.Context, p registry.Principal, target registry.Target, artifactType string,
) (registry.Referrers, error) {
	list, err := f.Registry.Referrers(ctx, p, target, artifactType)
	if errdef.ReasonOf(err) == errdef.UpstreamThrottled {
		return registry.Referrers{}, nil
	}
	return list, err
}

func (f forgiving) Resolve(
	ctx context.Context, p registry.Principal, target registry.Target,
) (registry.Resolved, error) {
	resolved, err := f.Registry.Resolve(ctx, p, target)
	if errdef.ReasonOf(err) == errdef.UpstreamTimeout {
		return resolved, errdef.New(errdef.NotFound, "no such tag")
	}
	return resolved, err
}

// halfForgiving has only the first of the two bugs.
type halfForgiving struct{ forgiving }

func (f halfForgiving) Resolve(
	ctx context.Context, p registry.Principal, target registry.Target,
) (registry.Resolved, error) {
	return f.Registry.Resolve(ctx, p, target)
}

// The check of G5 finds the bug it is there for.
func TestPlantedAbsencesAreFound(t *testing.T) {
	f := registrytest.New(t)
	if err := registrytest.ErrorIsNeverAnAnswer(t.Context(), f, f.Cache); err != nil {
		t.Errorf("without a bug: %v", err)
	}
	for _, planted := range []registry.Registry{forgiving{f.Cache}, halfForgiving{forgiving{f.Cache}}} {
		if registrytest.ErrorIsNeverAnAnswer(t.Context(), f, planted) == nil {
			t.Errorf("%T passed", planted)
		}
	}
}

// boasting is the bug that G6 forbids: it calls every answer fresh.
type boasting struct{ registry.Registry }

func (b boasting) Resolve(
	ctx context.Context, p registry.Principal, target registry.Target,
) (registry.Resolved, error) {
	resolved, err := b.Registry.Resolve(ctx, p, target)
	resolved.Provenance.Fresh, resolved.Provenance.StaleReason = true, ""
	return resolved, err
}

// clinging is the other one: it gives what it once knew, without a bound.
type clinging struct {
	registry.Registry
	last registry.Resolved
}

func (c *clinging) Resolve(
	ctx context.Context, p registry.Principal, target registry.Target,
) (registry.Resolved, error) {
	resolved, err := c.Registry.Resolve(ctx, p, target)
	if err == nil {
		c.last = resolved
	}
	return c.last, nil
}

// The check of G6 finds the bugs it is there for.
func TestPlantedStalenessIsFound(t *testing.T) {
	for _, plant := range []func(registry.Registry) registry.Registry{
		func(r registry.Registry) registry.Registry { return boasting{r} },
		func(r registry.Registry) registry.Registry { return &clinging{Registry: r} },
	} {
		f := registrytest.New(t)
		if planted := plant(f.Cache); registrytest.StaleIsDeclared(t.Context(), f, planted) == nil {
			t.Errorf("%T passed", planted)
		}
	}
}

// G1: an answer never comes from a catalog older than the caller has seen.
func TestWaitsForTheIndexOfTheCaller(t *testing.T) {
	f := registrytest.New(t)
	begun := make(chan struct{})
	cache := registry.New(registry.Config{
		Catalog: f.Catalog, Store: f.Store, Fill: f.Upstream, Ready: func() error { close(begun); return nil },
	})
	target := registrytest.Tag(registrytest.Hosted, "later")
	target.MinIndex = f.Catalog.Snapshot().Index() + 1
	answers := make(chan error)
	go func() {
		_, err := cache.Resolve(t.Context(), registrytest.Caller(), target)
		answers <- err
	}()
	<-begun
	f.Apply(t, catalog.Publish{
		Tenant: reference.DefaultTenant, Repository: registrytest.Hosted, Source: catalog.SourcePushed,
		Tags: []catalog.TagUpdate{{Name: "later", Descriptor: f.Image.Descriptor}},
	})
	if err := <-answers; err != nil {
		t.Errorf("the tag was published at the index of the caller, and the answer is %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	target = registrytest.Tag(registrytest.Hosted, "v1")
	target.MinIndex = f.Catalog.Snapshot().Index() + 1
	if _, err := f.Cache.Resolve(ended, registrytest.Caller(), target); errdef.ReasonOf(err) != errdef.Canceled {
		t.Errorf("a call that ended before its index came: %v", err)
	}
}

// G8: another tenant's repository of the same name is another repository.
func TestTenantsAreApart(t *testing.T) {
	f := registrytest.New(t)
	other := registry.Principal{Name: "anonymous", Tenant: "other"}
	digests := registrytest.Digest(registrytest.Hosted, f.Layer.Digest)
	if _, err := f.Cache.FetchBlob(t.Context(), other, digests, 0); errdef.ReasonOf(err) != errdef.NotFound {
		t.Errorf("blob: %v", err)
	}
	tag := registrytest.Tag(registrytest.Hosted, "v1")
	if _, err := f.Cache.Resolve(t.Context(), other, tag); errdef.ReasonOf(err) != errdef.NotFound {
		t.Errorf("tag: %v", err)
	}
	image := registrytest.Digest(registrytest.Hosted, f.Image.Digest)
	if list, err := f.Cache.Referrers(t.Context(), other, image, ""); err != nil || len(list.Descriptors) > 0 {
		t.Errorf("referrers: %v, %v", list.Descriptors, err)
	}
}

// Content that has rotted on this node is asked for again, and the answer is right.
func TestRotIsFilledAgain(t *testing.T) {
	f := registrytest.New(t)
	dir := t.TempDir()
	store := openStore(t, dir)
	ingest, err := store.Begin(f.Lost.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = ingest.Write(f.Lost.Bytes) // what fails here shows in Verify
	if err := ingest.Verify(); err != nil {
		t.Fatal(err)
	}
	if err := ingest.Persist(); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "blobs", "sha256", f.Lost.Digest.Encoded())
	rotten := append([]byte("X"), f.Lost.Bytes[1:]...)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, rotten, 0o600); err != nil {
		t.Fatal(err)
	}
	cache := registry.New(registry.Config{
		Catalog: f.Catalog, Store: openStore(t, dir), Fill: f.Upstream, Node: "n2", Ready: f.Ready, Clock: f.Now,
	})
	target := registrytest.Digest(registrytest.Mirrored, f.Lost.Digest)
	blob, err := cache.FetchBlob(t.Context(), registrytest.Caller(), target, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Content.Close()
	body, err := io.ReadAll(blob.Content)
	if err != nil || string(body) != string(f.Lost.Bytes) || !blob.Provenance.Filled {
		t.Errorf("read %q, %v (filled %t)", body, err, blob.Provenance.Filled)
	}
}

// An upstream that was taken out of the configuration cannot be asked: what it said is given inside its bounds, and
// nothing that it was never asked about is called absent.
func TestRemovedUpstream(t *testing.T) {
	f := registrytest.New(t)
	f.Upstream.Remove()
	caller, v1 := registrytest.Caller(), registrytest.Tag(registrytest.Mirrored, "v1")
	if _, err := f.Cache.Resolve(t.Context(), caller, v1); err != nil {
		t.Errorf("fresh tag: %v", err)
	}
	f.Advance(registrytest.FreshFor)
	got, err := f.Cache.Resolve(t.Context(), caller, v1)
	if err != nil || got.Provenance.StaleReason != string(errdef.UpstreamUnknown) {
		t.Errorf("stale tag: %+v, %v", got.Provenance, err)
	}
	f.Advance(registrytest.StaleFor)
	if _, err = f.Cache.Resolve(t.Context(), caller, v1); errdef.ReasonOf(err) != errdef.UpstreamUnknown {
		t.Errorf("expired tag: %v", err)
	}
	unasked := registrytest.Digest(registrytest.Mirrored, f.Signature.Digest)
	if _, err = f.Cache.Referrers(t.Context(), caller, unasked, ""); errdef.ReasonOf(err) != errdef.UpstreamUnknown {
		t.Errorf("referrers never observed: %v", err)
	}
}

// A silent upstream costs a caller who could have a stale answer RefreshWait, not its whole patience.
func TestStaleAnswerDoesNotWaitForASilentUpstream(t *testing.T) {
	f := registrytest.New(t)
	f.Advance(registrytest.FreshFor + policy.Default().RevalidateFor)
	f.Upstream.Hang()
	got, err := f.Cache.Resolve(t.Context(), registrytest.Caller(), registrytest.Tag(registrytest.Mirrored, "v1"))
	if err != nil || got.Provenance.StaleReason != string(errdef.Deadline) {
		t.Errorf("silent upstream: %+v, %v", got.Provenance, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = f.Cache.Resolve(ended, registrytest.Caller(), registrytest.Tag(registrytest.Mirrored, "v1"))
	if errdef.ReasonOf(err) != errdef.Canceled {
		t.Errorf("a caller who left: %v", err)
	}
}

func TestObservations(t *testing.T) {
	f := registrytest.New(t)
	var seen []registry.Observation
	r := registry.Observed(f.Cache, func(o registry.Observation) { seen = append(seen, o) })
	resolve := func(tag reference.Tag) { // the outcome is what was observed
		_, _ = r.Resolve(t.Context(), registrytest.Caller(), registrytest.Tag(registrytest.Mirrored, tag))
	}
	resolve("v1")
	resolve("fresh")
	f.Upstream.Fail(errdef.New(errdef.UpstreamThrottled, "planted"))
	resolve("other")
	f.Advance(registrytest.FreshFor)
	resolve("v1")
	f.Advance(policy.Default().RevalidateFor)
	resolve("v1")
	want := []registry.Observation{
		{API: "resolve", Source: "catalog", Result: "ok"}, {API: "resolve", Source: "fill", Result: "ok"},
		{API: "resolve", Source: "none", Result: "UPSTREAM_THROTTLED"}, {API: "resolve", Source: "revalidating", Result: "ok"},
		{API: "resolve", Source: "stale", Result: "ok"},
	}
	if len(seen) != len(want) {
		t.Fatalf("observed %v", seen)
	}
	for i, o := range seen {
		o.Took = 0
		want[i].Repository = registrytest.Mirrored
		if o != want[i] {
			t.Errorf("observed %+v, want %+v", o, want[i])
		}
	}
}

// The warm path allocates what it answers with and next to nothing beside.
func TestWarmPathAllocations(t *testing.T) {
	f := registrytest.New(t)
	caller, ctx := registrytest.Caller(), t.Context()
	for _, c := range []struct {
		api  string
		most float64
		call func() error
	}{
		{"resolve", 1, func() error {
			_, err := f.Cache.Resolve(ctx, caller, registrytest.Tag(registrytest.Mirrored, "v1"))
			return err
		}},
		{"manifest by tag", 4, func() error {
			_, err := f.Cache.FetchManifest(ctx, caller, registrytest.Tag(registrytest.Mirrored, "v1"))
			return err
		}},
		{"blob", 4, func() error {
			blob, err := f.Cache.FetchBlob(ctx, caller, registrytest.Digest(registrytest.Mirrored, f.Layer.Digest), 0)
			if err != nil {
				return err
			}
			return blob.Content.Close()
		}},
		{"referrers", 2, func() error {
			_, err := f.Cache.Referrers(ctx, caller, registrytest.Digest(registrytest.Mirrored, f.Image.Digest), "")
			return err
		}},
	} {
		got := testing.AllocsPerRun(100, func() {
			if err := c.call(); err != nil {
				t.Fatal(err)
			}
		})
		if got > c.most {
			t.Errorf("%s: %.0f allocations, want at most %.0f", c.api, got, c.most)
		}
	}
}
