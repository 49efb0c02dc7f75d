package registry_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/fill"
	"github.com/ocistern/ocistern/internal/policy"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
	"github.com/ocistern/ocistern/internal/registry/registrytest"
)

// cacheWith is the cache of a fixture, with rules.
func cacheWith(t *testing.T, f *registrytest.Fixture, through registry.Fill, rules ...policy.Rule) *registry.Cache {
	t.Helper()
	set, err := policy.NewSet(rules)
	if err != nil {
		t.Fatal(err)
	}
	return registry.New(registry.Config{
		Catalog: f.Catalog, Store: f.Store, Fill: through, Policies: set, Node: registrytest.Node, Clock: f.Now, Ready: f.Ready,
		ManifestBytes: registrytest.ManifestBytes, RefreshWait: 50 * time.Millisecond,
	})
}

func pinning(pins map[reference.Tag]digest.Digest) policy.Rule {
	return policy.Rule{Match: string(registrytest.Mirrored), PinnedTags: pins}
}

// A pinned tag is its digest: the upstream is never asked what the tag means, only for content that is not here yet.
func TestPinnedTags(t *testing.T) {
	f := registrytest.New(t)
	absent := digest.FromString("nobody has this")
	cache := cacheWith(t, f, f.Upstream, pinning(map[reference.Tag]digest.Digest{
		"v1": f.Signature.Digest, "unseen": f.Fresh.Digest, "gone": absent, "layer": f.Layer.Digest,
	}))
	f.Advance(10 * registrytest.StaleFor)
	for _, c := range []struct {
		tag    reference.Tag
		want   registrytest.Content
		reason errdef.Reason
		asked  bool
	}{
		{"v1", f.Signature, "", false},
		{"unseen", f.Fresh, "", true},
		{"gone", registrytest.Content{}, errdef.NotFound, true},
		{"layer", registrytest.Content{}, errdef.NotFound, true}, // is no manifest, here nor there
	} {
		before := f.Upstream.Asked()
		target := registrytest.Tag(registrytest.Mirrored, c.tag)
		got, err := cache.FetchManifest(t.Context(), registrytest.Caller(), target)
		if errdef.ReasonOf(err) != c.reason || string(got.Content) != string(c.want.Bytes) {
			t.Errorf("%s: %q, %v", c.tag, got.Content, err)
		}
		if asked := f.Upstream.Asked() > before; asked != c.asked {
			t.Errorf("%s: asked the upstream: %t", c.tag, asked)
		}
		p := got.Provenance
		if err == nil && (!p.Fresh || p.StaleReason != "" || p.Why != registry.WhyPinned) {
			t.Errorf("%s: %+v", c.tag, p)
		}
		if err != nil && !strings.Contains(err.Error(), string(c.tag)+" is pinned by a policy") {
			t.Errorf("%s: the error does not name the pin: %v", c.tag, err)
		}
	}
	f.Upstream.Fail(errdef.New(errdef.UpstreamThrottled, "planted"))
	resolve := func(tag reference.Tag, as registry.Principal) error {
		got, err := cache.Resolve(t.Context(), as, registrytest.Tag(registrytest.Mirrored, tag))
		if err == nil && got.Provenance.Why != registry.WhyPinned {
			t.Errorf("%s: %+v", tag, got.Provenance)
		}
		return err
	}
	if err := resolve("v1", registrytest.Caller()); err != nil {
		t.Errorf("in an outage: %v", err)
	}
	if err := resolve("gone", registrytest.Caller()); errdef.ReasonOf(err) != errdef.UpstreamThrottled {
		t.Errorf("in an outage, not here: %v", err)
	}
	// G8: a pin gives another tenant no content that only the upstream can give it.
	if err := resolve("v1", registry.Principal{Tenant: "other"}); errdef.ReasonOf(err) != errdef.UpstreamThrottled {
		t.Errorf("another tenant: %v", err)
	}
}

func TestImmutableTags(t *testing.T) {
	f := registrytest.New(t)
	cache := cacheWith(t, f, f.Upstream, policy.Rule{Match: "up.test/**", ImmutableTags: []string{"v*"}})
	resolve := func(tag reference.Tag) (registry.Provenance, int, error) {
		before := f.Upstream.Asked()
		got, err := cache.Resolve(t.Context(), registrytest.Caller(), registrytest.Tag(registrytest.Mirrored, tag))
		return got.Provenance, f.Upstream.Asked() - before, err
	}
	f.Advance(10 * registrytest.StaleFor)
	p, asked, err := resolve("v1")
	if err != nil || asked != 0 || !p.Fresh || p.Why != registry.WhyImmutable || p.Age != 10*registrytest.StaleFor {
		t.Errorf("known: %+v, asked %d times, %v", p, asked, err)
	}
	for range 2 { // an absence is no knowledge
		if _, asked, err = resolve("v9"); errdef.ReasonOf(err) != errdef.NotFound || asked != 1 {
			t.Errorf("absent: asked %d times, %v", asked, err)
		}
		f.Advance(10 * registrytest.StaleFor)
	}
	for range 2 {
		if p, asked, err = resolve("fresh"); err != nil || asked != 1 || p.Why != registry.WhyFresh {
			t.Errorf("of another pattern: %+v, asked %d times, %v", p, asked, err)
		}
		f.Advance(10 * registrytest.StaleFor)
	}
	f.Apply(t, catalog.Invalidate{Tenant: reference.DefaultTenant, Repository: registrytest.Mirrored, Tag: "v1"})
	if p, asked, err = resolve("v1"); err != nil || asked != 1 || p.Why != registry.WhyFresh {
		t.Errorf("invalidated: %+v, asked %d times, %v", p, asked, err)
	}
}

// gate is an upstream that answers when it is opened.
type gate struct {
	registry.Fill
	open  chan struct{}
	asked atomic.Int32
	done  chan struct{} // gets one for each answer
}

func (g *gate) Refresh(ctx context.Context, key fill.Key, seen catalog.LogIndex) (catalog.LogIndex, error) {
	g.asked.Add(1)
	select {
	case <-g.open:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { g.done <- struct{}{} }()
	return g.Fill.Refresh(ctx, key, seen)
}

// A background revalidation adds nothing to the caller's latency: while the upstream is silent, every caller has its
// answer, declared stale, and the upstream is asked once for all of them.
func TestRevalidatesInTheBackground(t *testing.T) {
	f := registrytest.New(t)
	g := &gate{Fill: f.Upstream, open: make(chan struct{}), done: make(chan struct{}, 8)}
	cache := cacheWith(t, f, g)
	tag := registrytest.Tag(registrytest.Mirrored, "v1")
	f.Advance(registrytest.FreshFor)
	check := func(p registry.Provenance, err error) {
		t.Helper()
		if err != nil || p.Fresh || p.Why != registry.WhyRevalidating || p.StaleReason != "REVALIDATING" || p.Filled {
			t.Fatalf("while the upstream is silent: %+v, %v", p, err)
		}
	}
	for range 50 {
		resolved, err := cache.Resolve(t.Context(), registrytest.Caller(), tag)
		check(resolved.Provenance, err)
		known, err := cache.ResolveKnown(t.Context(), registrytest.Caller(), tag, []reference.Reference{tag.Reference})
		check(known[0].Provenance, err)
		list, err := cache.Referrers(t.Context(), registrytest.Caller(), registrytest.Digest(registrytest.Mirrored, f.Image.Digest), "")
		check(list.Provenance, err)
	}
	close(g.open)
	<-g.done
	<-g.done
	if asked := g.asked.Load(); asked != 2 {
		t.Errorf("asked %d times about a tag and a list", asked)
	}
	resolved, err := cache.Resolve(t.Context(), registrytest.Caller(), tag)
	if err != nil || resolved.Provenance.Why != registry.WhyFresh || resolved.Provenance.Age != 0 {
		t.Errorf("after the revalidation: %+v, %v", resolved.Provenance, err)
	}
}

// Outside of the time to revalidate in, and past the staleness bound, callers wait for the upstream.
func TestBoundsOfRevalidation(t *testing.T) {
	long, none := 10*registrytest.StaleFor, time.Duration(0)
	for name, c := range map[string]struct {
		rule  policy.Rule
		after time.Duration
		why   registry.Why
	}{
		"at its end":                {policy.Rule{Match: "**"}, registrytest.FreshFor + policy.Default().RevalidateFor - 1, registry.WhyRevalidating},
		"after its end":             {policy.Rule{Match: "**"}, registrytest.FreshFor + policy.Default().RevalidateFor, registry.WhyFresh},
		"off":                       {policy.Rule{Match: "**", RevalidateFor: &none}, registrytest.FreshFor, registry.WhyFresh},
		"past the staleness bound":  {policy.Rule{Match: "**", RevalidateFor: &long}, registrytest.FreshFor + registrytest.StaleFor, registry.WhyFresh},
		"up to the staleness bound": {policy.Rule{Match: "**", RevalidateFor: &long}, registrytest.FreshFor + registrytest.StaleFor - 1, registry.WhyRevalidating},
	} {
		t.Run(name, func(t *testing.T) {
			f := registrytest.New(t)
			cache := cacheWith(t, f, f.Upstream, c.rule)
			f.Advance(c.after)
			got, err := cache.Resolve(t.Context(), registrytest.Caller(), registrytest.Tag(registrytest.Mirrored, "v1"))
			if err != nil || got.Provenance.Why != c.why {
				t.Errorf("%+v, %v", got.Provenance, err)
			}
		})
	}
}
