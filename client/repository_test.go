package client_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/memory"
	orasdef "oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/internal/testnode"
)

// What takes a repository of oras-go takes ours.
var (
	_ oras.GraphTarget          = (*client.Repository)(nil)
	_ oras.ReadOnlyGraphTarget  = (*client.Repository)(nil)
	_ registry.ReferrerLister   = (*client.Repository)(nil)
	_ registry.TagLister        = (*client.Repository)(nil)
	_ registry.ReferenceFetcher = (*client.Repository)(nil)
)

func descriptorOf(mediaType string, bytes []byte) ocispec.Descriptor {
	return content.NewDescriptorFromBytes(mediaType, bytes)
}

func TestCopyWithOras(t *testing.T) {
	f := newFixture(t, 2)
	_, repository := f.open(t)
	target := memory.New()
	copied, err := oras.ExtendedCopy(t.Context(), repository, "v1", target, "v1", oras.DefaultExtendedCopyOptions)
	if err != nil {
		t.Fatal(err)
	}
	if !content.Equal(copied, f.image) {
		t.Errorf("copied %v, want %v", copied, f.image)
	}
	layer, err := content.FetchAll(t.Context(), target, f.layerDescriptor())
	if err != nil || !bytes.Equal(layer, f.layer) {
		t.Errorf("layer: %d bytes, %v", len(layer), err)
	}
	signatures, err := registry.Referrers(t.Context(), target, f.image, testnode.SignatureType)
	if err != nil || len(signatures) != 3 {
		t.Errorf("the copy has %d signatures, %v; want 3", len(signatures), err)
	}
}

func TestResolveForms(t *testing.T) {
	f := newFixture(t, 1)
	_, repository := f.open(t)
	dgst := f.image.Digest.String()
	for ref, want := range map[string]error{
		"v1":                                 nil,
		dgst:                                 nil,
		"v1@" + dgst:                         nil,
		"@" + dgst:                           client.ErrTagInvalid,
		repositoryName + ":v1":               nil,
		repositoryName + "@" + dgst:          nil,
		repositoryName + ":v1@" + dgst:       nil,
		"nothere":                            client.ErrNotFound,
		"up.test/org/other:v1":               client.ErrReferenceInvalid,
		repositoryName:                       client.ErrReferenceInvalid,
		"":                                   client.ErrTagInvalid,
		"-v1":                                client.ErrTagInvalid,
		"sha256:abc":                         client.ErrDigestInvalid,
		"sha1:" + dgst:                       client.ErrDigestInvalid,
		"up.test/../app:v1":                  client.ErrNameInvalid,
		string(descriptorOf("", nil).Digest): client.ErrNotFound,
	} {
		got, err := repository.Resolve(t.Context(), ref)
		if !errors.Is(err, want) || (want == nil && (err != nil || !content.Equal(got, f.image))) {
			t.Errorf("Resolve(%q) = %v, %v; want error %v", ref, got, err, want)
		}
	}
}

func TestNotFoundIsOrasNotFound(t *testing.T) {
	f := newFixture(t, 1)
	_, repository := f.open(t)
	absent := descriptorOf("text/plain", []byte("absent"))
	if _, err := repository.Fetch(t.Context(), absent); !errors.Is(err, orasdef.ErrNotFound) {
		t.Errorf("Fetch: %v", err)
	}
	for _, c := range []struct {
		descriptor ocispec.Descriptor
		want       bool
	}{
		{f.image, true}, {f.layerDescriptor(), true}, {absent, false},
		{descriptorOf(ocispec.MediaTypeImageManifest, []byte("{ }")), false},
	} {
		if got, err := repository.Exists(t.Context(), c.descriptor); err != nil || got != c.want {
			t.Errorf("Exists(%s %s) = %v, %v", c.descriptor.MediaType, c.descriptor.Digest, got, err)
		}
	}
}

func TestReferrersAndProvenance(t *testing.T) {
	f := newFixture(t, 1)
	f.cluster.SetIndex(42)
	c, repository := f.open(t)
	for artifactType, want := range map[string]int{"": 3, testnode.SignatureType: 3, "text/other": 0} {
		calls := 0
		err := repository.Referrers(t.Context(), f.image, artifactType, func(list []ocispec.Descriptor) error {
			calls++
			if len(list) != want {
				t.Errorf("%d referrers of type %q, want %d", len(list), artifactType, want)
			}
			return nil
		})
		if err != nil || calls != min(want, 1) {
			t.Errorf("type %q: %d calls, %v", artifactType, calls, err)
		}
	}
	list, err := repository.ReferrersDetailed(t.Context(), f.image, testnode.SignatureType)
	if err != nil {
		t.Fatal(err)
	}
	want := client.Provenance{
		CatalogIndex: 42, Source: client.SourceUpstream, Fresh: true, Observed: testnode.Observed(), Node: "a",
		Why: "fresh", AgeSeconds: testnode.Age.Seconds(),
	}
	if list.Provenance != want {
		t.Errorf("provenance %+v, want %+v", list.Provenance, want)
	}
	if age := list.Provenance.Age(testnode.Observed().Add(time.Minute)); age != time.Minute {
		t.Errorf("age %s", age)
	}
	if c.CatalogIndex() != 42 {
		t.Errorf("session index %d", c.CatalogIndex())
	}
	if predecessors, err := repository.Predecessors(t.Context(), f.image); err != nil || len(predecessors) != 3 {
		t.Errorf("Predecessors: %d, %v", len(predecessors), err)
	}
}

func TestTagsInPages(t *testing.T) {
	f := newFixture(t, 1)
	for _, tag := range []string{"v2", "v3", "v4", "v5"} {
		if err := f.cluster.Repository(repositoryName).Tag(t.Context(), f.image, tag); err != nil {
			t.Fatal(err)
		}
	}
	_, repository := f.open(t)
	tags, err := registry.Tags(t.Context(), repository)
	if want := []string{"v1", "v2", "v3", "v4", "v5"}; err != nil || !slices.Equal(tags, want) {
		t.Errorf("Tags = %v, %v; want %v", tags, err, want)
	}
	stop := errors.New("enough")
	if err := repository.Tags(t.Context(), "v3", func(tags []string) error {
		if !slices.Equal(tags, []string{"v4", "v5"}) {
			t.Errorf("after v3: %v", tags)
		}
		return stop
	}); !errors.Is(err, stop) {
		t.Errorf("error of the callback: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	f := newFixture(t, 1)
	_, repository := f.open(t)
	err := repository.Push(t.Context(), f.image, bytes.NewReader(nil))
	if tagErr := repository.Tag(t.Context(), f.image, "v2"); !errors.Is(err, client.ErrUnsupported) || !errors.Is(tagErr, orasdef.ErrUnsupported) {
		t.Errorf("Push: %v, Tag: %v", err, tagErr)
	}
	if f.calls("") != 0 {
		t.Error("a node was asked")
	}
}

func TestNewRejects(t *testing.T) {
	for name, endpoints := range map[string][]string{
		"none": {}, "no port": {"localhost"}, "URL": {"http://localhost:5010"}, "port 0": {"localhost:0"},
		"no host": {":5010"}, "port name": {"localhost:grpc"}, "one of two": {"localhost:5010", ""},
	} {
		if _, err := client.New(endpoints); !errors.Is(err, client.ErrConfigInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, option := range map[string]client.Option{
		"timeout": client.WithTimeout(0), "attempt timeout": client.WithAttemptTimeout(-time.Second),
		"credentials": client.WithTransportCredentials(nil), "logger": client.WithLogger(nil),
	} {
		if _, err := client.New([]string{"localhost:5010"}, option); !errors.Is(err, client.ErrConfigInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := client.New([]string{"localhost:5010"}, client.WithTenant("Not A Label")); !errors.Is(err, client.ErrNameInvalid) {
		t.Errorf("tenant: %v", err)
	}
}
