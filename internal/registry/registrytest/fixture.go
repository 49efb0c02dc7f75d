// Package registrytest holds the one test suite for everything that is a registry.Registry or leads to one: the cache
// itself, its decorators, gRPC and HTTP give the same answers. It is for tests of this module only.
//
// A Fixture is one node: a real catalog, a real blobstore, and a scripted upstream in place of package fill.
package registrytest

import (
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
)

// Names in the fixture.
const (
	Mirrored = reference.Repository("up.test/app")    // of the scripted upstream
	Hosted   = reference.Repository("team/app")       // has no upstream
	Unknown  = reference.Repository("other.test/app") // names an upstream that is not configured
	Node     = "n1"

	// SignatureType is the artifact type of the first signature of the image, AttestationType that of the second.
	SignatureType   = "test/signature"
	AttestationType = "test/attestation"

	// ManifestBytes is the limit of a manifest.
	ManifestBytes = 64 << 10
)

// Fixture is one node and what it knows.
type Fixture struct {
	Catalog  *catalog.Catalog
	Store    *blobstore.Store
	Upstream *Upstream
	Cache    *registry.Cache

	// Image is a manifest with one layer; Signature and Attestation have it as their subject. Lost is a second layer,
	// which this node no longer has; Fresh is a manifest that only the upstream has; Large one that exceeds the limit.
	Image, Layer, Lost, Signature, Attestation, Fresh, Large Content

	// mutex guards now, ready and index.
	mutex sync.Mutex
	now   time.Time
	ready error
	index catalog.LogIndex
}

// Content is bytes with their descriptor.
type Content struct {
	ocispec.Descriptor
	Bytes []byte
}

// New returns a fixture whose repositories Mirrored and Hosted both have Image as v1, all of it held and fresh.
func New(t *testing.T) *Fixture {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	store, err := blobstore.Open(t.TempDir(), blobstore.Options{MemoryBytes: 1 << 20, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &Fixture{Catalog: catalog.New(), Store: store, now: time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)}
	f.Upstream = newUpstream(f)
	f.Cache = registry.New(registry.Config{
		Catalog: f.Catalog, Store: store, Fill: f.Upstream, Node: Node, ManifestBytes: ManifestBytes,
		Clock: f.Now, Ready: f.Ready, RefreshWait: 50 * time.Millisecond,
	})
	f.Layer = blob("the layer of the image")
	f.Lost = blob("a layer that this node has lost")
	f.Image = manifest(t, "test/image", nil, f.Layer.Descriptor, f.Lost.Descriptor)
	f.Signature = manifest(t, SignatureType, &f.Image.Descriptor)
	f.Attestation = manifest(t, AttestationType, &f.Image.Descriptor)
	f.Fresh = manifest(t, "test/fresh", nil, f.Layer.Descriptor)
	f.Large = manifest(t, string(make([]byte, ManifestBytes/6+1)), nil) // a zero byte takes six in JSON
	for _, content := range []Content{f.Image, f.Layer, f.Signature, f.Attestation} {
		f.Hold(t, content)
	}
	f.publish(t)
	return f
}

func (f *Fixture) publish(t *testing.T) {
	t.Helper()
	publish := catalog.Publish{
		Tenant: reference.DefaultTenant, Repository: Mirrored, Source: catalog.SourceUpstream, Time: f.Now(), Holder: Node,
		Blobs: []ocispec.Descriptor{
			f.Image.Descriptor, f.Layer.Descriptor, f.Lost.Descriptor, f.Signature.Descriptor, f.Attestation.Descriptor,
		},
		Manifests: []catalog.Manifest{
			{Descriptor: f.Image.Descriptor, Children: []ocispec.Descriptor{f.Layer.Descriptor, f.Lost.Descriptor}},
			{Descriptor: f.Signature.Descriptor, Subject: f.Image.Digest},
			{Descriptor: f.Attestation.Descriptor, Subject: f.Image.Digest},
		},
		Tags: []catalog.TagUpdate{{Name: "v1", Descriptor: f.Image.Descriptor, Freshness: f.Freshness()}},
		Referrers: []catalog.Referrers{{
			Subject: f.Image.Digest, Descriptors: []ocispec.Descriptor{f.Signature.Descriptor, f.Attestation.Descriptor},
			Freshness: f.Freshness(),
		}},
	}
	pushed := publish
	pushed.Repository, pushed.Source, pushed.Referrers = Hosted, catalog.SourcePushed, nil
	pushed.Tags = []catalog.TagUpdate{
		{Name: "v1", Descriptor: f.Image.Descriptor}, {Name: "v2", Descriptor: f.Image.Descriptor},
		{Name: "v3", Descriptor: f.Signature.Descriptor},
	}
	f.Apply(t, publish, pushed)
}

// Apply applies commands as the log would, and returns the index of the last.
func (f *Fixture) Apply(t *testing.T, commands ...catalog.Command) catalog.LogIndex {
	t.Helper()
	index, err := f.apply(commands...)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func (f *Fixture) apply(commands ...catalog.Command) (catalog.LogIndex, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for _, command := range commands {
		f.index++
		if err := f.Catalog.Apply(catalog.Entry{Index: f.index, Command: command})[0].Err; err != nil {
			return 0, err
		}
	}
	return f.index, nil
}

// Hold puts content on the node's disk.
func (f *Fixture) Hold(t *testing.T, content Content) {
	t.Helper()
	if err := f.hold(content); err != nil {
		t.Fatal(err)
	}
}

func (f *Fixture) hold(content Content) error {
	ingest, err := f.Store.Begin(content.Descriptor)
	if err != nil {
		return err
	}
	if _, err := ingest.Write(content.Bytes); err != nil {
		return err
	}
	if err := ingest.Verify(); err != nil {
		return err
	}
	return ingest.Persist()
}

// Now is the clock of the node. It stands still but for Advance.
func (f *Fixture) Now() time.Time {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.now
}

// Advance moves the clock.
func (f *Fixture) Advance(d time.Duration) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.now = f.now.Add(d)
}

// FreshFor and StaleFor are the life of what the upstream says: fresh, and then stale but usable.
const (
	FreshFor = time.Minute
	StaleFor = time.Hour
)

// Freshness is that of an observation made now.
func (f *Fixture) Freshness() catalog.Freshness {
	now := f.Now()
	return catalog.Freshness{Observed: now, FreshUntil: now.Add(FreshFor), StaleUntil: now.Add(FreshFor + StaleFor)}
}

// Ready is the readiness of the node.
func (f *Fixture) Ready() error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.ready
}

// SetReady sets the readiness of the node; nil is ready.
func (f *Fixture) SetReady(err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.ready = err
}

func blob(text string) Content {
	return content(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}, []byte(text))
}

func manifest(t *testing.T, artifactType string, subject *ocispec.Descriptor, layers ...ocispec.Descriptor) Content {
	t.Helper()
	body, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: ocispec.DescriptorEmptyJSON, Subject: subject, Layers: layers,
	})
	if err != nil {
		t.Fatal(err)
	}
	return content(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType}, body)
}

func content(desc ocispec.Descriptor, body []byte) Content {
	desc.Digest, desc.Size = digest.FromBytes(body), int64(len(body))
	return Content{Descriptor: desc, Bytes: body}
}
