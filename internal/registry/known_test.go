package registry_test

import (
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/policy"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
	"github.com/ocistern/ocistern/internal/registry/registrytest"
)

// What is known is answered as Resolve answers it; for the rest, nobody is asked and nothing is told: not that it is
// absent, and nothing that bridges a failure.
func TestResolveKnown(t *testing.T) {
	f := registrytest.New(t)
	var seen []registry.Observation
	known := registry.ObservedKnown(f.Cache, func(o registry.Observation) { seen = append(seen, o) })
	tag := func(r reference.Repository, name reference.Tag) reference.Reference {
		return reference.Reference{Repository: r, Tag: name}
	}
	dgst := func(r reference.Repository, d digest.Digest) reference.Reference {
		return reference.Reference{Repository: r, Digest: d}
	}
	ask := func() []registry.Resolved {
		t.Helper()
		asked := f.Upstream.Asked()
		answers, err := known.ResolveKnown(t.Context(), registrytest.Caller(), registry.Target{}, []reference.Reference{
			tag(registrytest.Mirrored, "v1"), tag(registrytest.Mirrored, "fresh"), tag(registrytest.Hosted, "v3"),
			tag(registrytest.Unknown, "v1"), dgst(registrytest.Mirrored, f.Image.Digest), dgst(registrytest.Mirrored, f.Layer.Digest),
			dgst(registrytest.Unknown, f.Layer.Digest), {},
		})
		if err != nil {
			t.Fatal(err)
		}
		if f.Upstream.Asked() != asked {
			t.Error("the upstream was asked")
		}
		return answers
	}
	compare := func(answers []registry.Resolved, want ...ocispec.Descriptor) {
		t.Helper()
		for i, answer := range answers {
			if answer.Descriptor.Digest != want[i].Digest || answer.Descriptor.MediaType != want[i].MediaType ||
				answer.Descriptor.Size != want[i].Size {
				t.Errorf("name %d: %+v, want %+v", i, answer.Descriptor, want[i])
			}
			if want[i].Digest != "" && (!answer.Provenance.Fresh || answer.Provenance.Node != registrytest.Node) {
				t.Errorf("name %d: %+v", i, answer.Provenance)
			}
		}
	}
	none := ocispec.Descriptor{}
	compare(ask(), f.Image.Descriptor, none, f.Signature.Descriptor, none, f.Image.Descriptor, f.Layer.Descriptor, none, none)
	f.Advance(registrytest.FreshFor + policy.Default().RevalidateFor)
	compare(ask(), none, none, f.Signature.Descriptor, none, f.Image.Descriptor, f.Layer.Descriptor, none, none)
	if len(seen) != 4+3 || seen[0].API != "resolve" || seen[0].Source != "catalog" || seen[0].Result != "ok" {
		t.Errorf("observed %d calls: %+v", len(seen), seen)
	}
}

// A level holds for all names of a call, and is paid for once.
func TestResolveKnownAtALevel(t *testing.T) {
	f := registrytest.New(t)
	asked := 0
	elsewhere := catalog.Publish{
		Tenant: reference.DefaultTenant, Repository: registrytest.Hosted, Source: catalog.SourcePushed,
		Tags: []catalog.TagUpdate{{Name: "elsewhere", Descriptor: f.Image.Descriptor}},
	}
	names := []reference.Reference{{Repository: registrytest.Hosted, Tag: "elsewhere"}, {Repository: registrytest.Hosted, Tag: "v3"}}
	cache := registry.New(registry.Config{
		Catalog: f.Catalog, Store: f.Store, Fill: f.Upstream, Ready: func() error { return nil },
		Consensus: consensus{ask: func() (catalog.LogIndex, error) {
			if asked++; asked > 1 {
				return 0, errdef.New(errdef.NoQuorum, "planted")
			}
			f.Apply(t, elsewhere) // by another client, on another node
			return f.Catalog.Snapshot().Index(), nil
		}},
	})
	target := registry.Target{Level: registry.LevelLinearizable}
	answers, err := cache.ResolveKnown(t.Context(), registrytest.Caller(), target, names)
	if err != nil || answers[0].Descriptor.Digest == "" || answers[1].Descriptor.Digest == "" || asked != 1 {
		t.Errorf("got %+v, %v, with %d read indices", answers, err, asked)
	}
	if _, err := cache.ResolveKnown(t.Context(), registrytest.Caller(), target, names); errdef.ReasonOf(err) != errdef.NoQuorum {
		t.Errorf("without a quorum: %v", err)
	}
}
