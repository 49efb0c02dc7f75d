package prefetch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/policy"
	"github.com/ocistern/ocistern/internal/prefetch"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
)

const app = reference.Repository("up.test/app")

// tree is a cache in front of an upstream: what was asked for once is held from then on. What was asked is written down by
// its name.
type tree struct {
	inside atomic.Int32 // calls at a gate

	// mu guards all below.
	mu        sync.Mutex
	names     map[digest.Digest]string
	content   map[digest.Digest][]byte
	tags      map[reference.Tag]ocispec.Descriptor
	referrers map[digest.Digest][]ocispec.Descriptor
	held      map[string]bool
	refreshed map[string]bool // is held, and asked for again all the same
	stale     bool            // the upstream is asked in vain
	asked     []string
	fail      map[string]error
	gate      map[string]chan struct{} // closed to let a call pass
}

func newTree() *tree {
	return &tree{
		names: map[digest.Digest]string{}, content: map[digest.Digest][]byte{}, tags: map[reference.Tag]ocispec.Descriptor{},
		referrers: map[digest.Digest][]ocispec.Descriptor{}, held: map[string]bool{}, refreshed: map[string]bool{}, fail: map[string]error{},
		gate: map[string]chan struct{}{},
	}
}

func (tr *tree) blob(name string, body string) ocispec.Descriptor {
	return tr.add(name, "test/blob", []byte(body))
}

func (tr *tree) add(name, mediaType string, body []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.names[desc.Digest], tr.content[desc.Digest] = name, body
	return desc
}

// manifest adds a manifest with a config and layers, which refers to a subject unless that is nil.
func (tr *tree) manifest(name string, subject *ocispec.Descriptor, layers ...ocispec.Descriptor) ocispec.Descriptor {
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Subject: subject,
		Config: tr.blob(name+" config", "config of "+name), Layers: layers,
	}
	body, err := json.Marshal(manifest)
	if err != nil {
		panic(err)
	}
	desc := tr.add(name, ocispec.MediaTypeImageManifest, body)
	if subject != nil {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.referrers[subject.Digest] = append(tr.referrers[subject.Digest], desc)
	}
	return desc
}

func (tr *tree) listed(_ reference.Tenant, _ reference.Repository, subject digest.Digest) bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.held["referrers "+tr.names[subject]]
}

// ask writes down a call, waits at its gate, and tells whether the upstream was asked.
func (tr *tree) ask(ctx context.Context, name string) (filled bool, err error) {
	tr.mu.Lock()
	gate, known, failure := tr.gate[name], tr.held[name] && !tr.refreshed[name], tr.fail[name]
	if !known {
		tr.asked = append(tr.asked, name)
	}
	tr.held[name] = failure == nil
	tr.mu.Unlock()
	if gate != nil {
		tr.inside.Add(1)
		defer tr.inside.Add(-1)
		select {
		case <-gate:
		case <-ctx.Done():
			return false, errdef.Wrap(errdef.ReasonOf(ctx.Err()), ctx.Err(), "at the gate")
		}
	}
	return !known, failure
}

func (tr *tree) provenance(filled bool) registry.Provenance {
	return registry.Provenance{Filled: filled, Fresh: !tr.stale}
}

// takeAsked returns what was asked since the last time, sorted, and fails the test where something was asked twice.
func (tr *tree) takeAsked(t *testing.T) []string {
	t.Helper()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	asked := tr.asked
	tr.asked = nil
	slices.Sort(asked)
	if once := slices.Compact(slices.Clone(asked)); len(once) != len(asked) {
		t.Errorf("asked twice: %q", asked)
	}
	return asked
}

func (tr *tree) Resolve(ctx context.Context, _ registry.Principal, target registry.Target) (registry.Resolved, error) {
	tag := target.Reference.Tag
	filled, err := tr.ask(ctx, "tag "+string(tag))
	tr.mu.Lock()
	defer tr.mu.Unlock()
	desc, ok := tr.tags[tag]
	if !ok && err == nil {
		err = errdef.New(errdef.NotFound, "no tag %s", tag)
	}
	tr.held["manifest "+tr.names[desc.Digest]] = true // as package fill does
	return registry.Resolved{Descriptor: desc, Provenance: tr.provenance(filled)}, err
}

func (tr *tree) FetchManifest(ctx context.Context, _ registry.Principal, target registry.Target) (registry.Manifest, error) {
	tr.mu.Lock()
	dgst := target.Reference.Digest
	if dgst == "" {
		dgst = tr.tags[target.Reference.Tag].Digest
	}
	name, body := tr.names[dgst], tr.content[dgst]
	tr.mu.Unlock()
	filled, err := tr.ask(ctx, "manifest "+name)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: dgst, Size: int64(len(body))}
	return registry.Manifest{Descriptor: desc, Content: body, Provenance: tr.provenance(filled)}, err
}

func (tr *tree) FetchBlob(ctx context.Context, _ registry.Principal, target registry.Target, _ int64) (*registry.Blob, error) {
	tr.mu.Lock()
	name, body := tr.names[target.Reference.Digest], tr.content[target.Reference.Digest]
	tr.mu.Unlock()
	filled, err := tr.ask(ctx, "blob "+name)
	if err != nil {
		return nil, err
	}
	return &registry.Blob{
		Descriptor: ocispec.Descriptor{Digest: target.Reference.Digest, Size: int64(len(body))},
		Provenance: tr.provenance(filled), Content: io.NopCloser(bytes.NewReader(body)),
	}, nil
}

func (tr *tree) Referrers(ctx context.Context, _ registry.Principal, target registry.Target, _ string) (registry.Referrers, error) {
	tr.mu.Lock()
	name, list := tr.names[target.Reference.Digest], tr.referrers[target.Reference.Digest]
	tr.mu.Unlock()
	filled, err := tr.ask(ctx, "referrers "+name)
	return registry.Referrers{Descriptors: list, Provenance: tr.provenance(filled)}, err
}

func (tr *tree) Tags(
	_ context.Context, _ registry.Principal, _ registry.Target, last reference.Tag, limit int,
) (registry.TagPage, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var page registry.TagPage
	for _, tag := range slices.Sorted(maps.Keys(tr.tags)) {
		if tag > last && len(page.Tags) < limit && tr.held["tag "+string(tag)] { // only what was seen
			page.Tags = append(page.Tags, tag)
		}
	}
	return page, nil
}

// ahead is a tree behind prefetching, and the walks that have ended.
type ahead struct {
	*prefetch.Ahead
	*tree
	walks   chan prefetch.Walk
	refused chan string
}

func (a *ahead) WalkBegan(string)             {}
func (a *ahead) WalkEnded(walk prefetch.Walk) { a.walks <- walk }
func (a *ahead) WalkRefused(upstream string)  { a.refused <- upstream }

func newAhead(t *testing.T, tr *tree, depth int) *ahead {
	t.Helper()
	largest := int64(1000)
	rules, err := policy.NewSet([]policy.Rule{{Match: "up.test/**", PrefetchDepth: &depth, PrefetchBytes: &largest}})
	if err != nil {
		t.Fatal(err)
	}
	a := &ahead{tree: tr, walks: make(chan prefetch.Walk, 100), refused: make(chan string, 100)}
	a.Ahead = prefetch.New(tr, prefetch.Config{
		Policies: rules, Observer: a, Logger: slog.New(slog.DiscardHandler), Listed: tr.listed,
		Mirrors: func(repository reference.Repository) bool { return strings.HasPrefix(string(repository), "up.test/") },
	})
	t.Cleanup(a.Close)
	return a
}

// resolve asks for a tag, and returns the walk that this began once it has ended.
func (a *ahead) resolve(t *testing.T, tag reference.Tag) prefetch.Walk {
	t.Helper()
	if _, err := a.Ahead.Resolve(t.Context(), caller(), named(reference.Reference{Tag: tag})); err != nil {
		t.Fatal(err)
	}
	return a.ended(t)
}

func (a *ahead) ended(t *testing.T) prefetch.Walk {
	t.Helper()
	select {
	case walk := <-a.walks:
		return walk
	case <-time.After(time.Minute):
		t.Fatal("no walk has ended")
	}
	return prefetch.Walk{}
}

func caller() registry.Principal { return registry.Principal{Tenant: reference.DefaultTenant} }

func named(ref reference.Reference) registry.Target {
	ref.Repository = app
	return registry.Target{Reference: ref}
}
