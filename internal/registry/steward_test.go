package registry_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/policy"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
	"github.com/ocistern/ocistern/internal/registry/registrytest"
)

// log applies commands at once, on the one node of a fixture.
type log struct {
	*registrytest.Fixture
	t       *testing.T
	lagging []string
}

func (l log) Apply(_ context.Context, command catalog.Command) (catalog.LogIndex, error) {
	return l.Fixture.Apply(l.t, command), nil
}

func (l log) Lagging(context.Context, catalog.LogIndex) []string { return l.lagging }

func newSteward(t *testing.T, lagging ...string) (*registrytest.Fixture, *registry.Steward) {
	t.Helper()
	f := registrytest.New(t)
	f.Apply(t, catalog.RaiseLevel{Level: catalog.LevelRequests})
	l := log{f, t, lagging}
	return f, &registry.Steward{StewardConfig: registry.StewardConfig{
		Cache: f.Cache, Policies: policy.Defaults(), Proposer: l, Followers: l,
	}}
}

func scopes(t *testing.T, texts ...string) []registry.Scope {
	t.Helper()
	var parsed []registry.Scope
	for _, text := range texts {
		scope, err := registry.ParseScope(text)
		if err != nil {
			t.Fatal(err)
		}
		if scope.String() != text {
			t.Errorf("%q is printed as %q", text, scope)
		}
		parsed = append(parsed, scope)
	}
	return parsed
}

// TestInvalidate: what was fresh is asked about again, and a failure of the upstream is the answer, not what was known.
func TestInvalidate(t *testing.T) {
	for _, name := range []string{"up.test/app:v1", "up.test/app", "up.test/*"} {
		f, steward := newSteward(t)
		done, err := steward.Invalidate(t.Context(), registrytest.Caller(), scopes(t, name))
		if err != nil || done.Index != f.Catalog.Snapshot().Index() || len(done.Lagging) != 0 {
			t.Fatalf("%s: %+v, %v", name, done, err)
		}
		f.Upstream.Fail(errdef.New(errdef.UpstreamTimeout, "too slow"))
		tag, subject := registrytest.Tag(registrytest.Mirrored, "v1"), registrytest.Digest(registrytest.Mirrored, f.Image.Digest)
		if _, err := f.Cache.Resolve(t.Context(), registrytest.Caller(), tag); errdef.ReasonOf(err) != errdef.UpstreamTimeout {
			t.Errorf("%s: the tag is answered with %v", name, err)
		}
		if _, err := f.Cache.Referrers(t.Context(), registrytest.Caller(), subject, ""); errdef.ReasonOf(err) != errdef.UpstreamTimeout {
			t.Errorf("%s: the referrers are answered with %v", name, err)
		}
		if _, err := f.Cache.FetchManifest(t.Context(), registrytest.Caller(), subject); err != nil {
			t.Errorf("%s: content is gone: %v", name, err)
		}
		f.Upstream.Fail(nil)
		if answer, err := f.Cache.Resolve(t.Context(), registrytest.Caller(), tag); err != nil || !answer.Provenance.Fresh {
			t.Errorf("%s: %+v, %v", name, answer, err)
		}
	}
}

func TestInvalidateRefuses(t *testing.T) {
	f, steward := newSteward(t, "n2")
	for _, c := range []struct {
		scopes []registry.Scope
		want   errdef.Reason
	}{
		{nil, errdef.UsageInvalid},
		{make([]registry.Scope, registry.MaxScopes+1), errdef.UsageInvalid},
		{[]registry.Scope{{}}, errdef.UsageInvalid},
		{scopes(t, "other.test/app"), errdef.UpstreamUnknown},
		{scopes(t, "other.test/*"), errdef.UpstreamUnknown},
		{scopes(t, "up.test/app:v1", string(registrytest.Hosted)), errdef.UpstreamUnknown},
	} {
		before := f.Catalog.Snapshot().Index()
		if _, err := steward.Invalidate(t.Context(), registrytest.Caller(), c.scopes); errdef.ReasonOf(err) != c.want {
			t.Errorf("%v: %v, want %s", c.scopes, err, c.want)
		}
		if f.Catalog.Snapshot().Index() != before {
			t.Errorf("%v: something was done", c.scopes)
		}
	}
	done, err := steward.Invalidate(t.Context(), registrytest.Caller(), scopes(t, "up.test/app"))
	if err != nil || !slices.Equal(done.Lagging, []string{"n2"}) {
		t.Errorf("a node that lags behind is not named: %+v, %v", done, err)
	}
	for _, text := range []string{"", "UP/*", "up.test/app:", "up.test/app@sha256:1", "*", "up.test/**"} {
		if _, err := registry.ParseScope(text); err == nil {
			t.Errorf("%q is a scope", text)
		}
	}
}

func TestHistory(t *testing.T) {
	f, steward := newSteward(t)
	tag := registrytest.Tag(registrytest.Mirrored, "moving")
	if _, err := steward.History(t.Context(), registrytest.Caller(), tag); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("a tag that nobody has seen: %v", err)
	}
	for _, target := range []ocispec.Descriptor{f.Image.Descriptor, f.Signature.Descriptor, f.Image.Descriptor} {
		f.Advance(time.Second)
		f.Apply(t, catalog.Publish{
			Tenant: reference.DefaultTenant, Repository: registrytest.Mirrored, Source: catalog.SourceUpstream, Time: f.Now(), Holder: "n7",
			Tags: []catalog.TagUpdate{{Name: "moving", Descriptor: target, Freshness: f.Freshness()}},
		})
	}
	history, err := steward.History(t.Context(), registrytest.Caller(), tag)
	if err != nil || len(history.Events) != 3 || history.Truncated || history.Source != catalog.SourceUpstream {
		t.Fatalf("%+v, %v", history, err)
	}
	for i, want := range []registry.Event{
		{From: "", To: f.Image.Digest, Back: false}, {From: f.Image.Digest, To: f.Signature.Digest, Back: false},
		{From: f.Signature.Digest, To: f.Image.Digest, Back: true},
	} {
		got := history.Events[i]
		if got.From != want.From || got.To != want.To || got.Back != want.Back || got.Node != "n7" || got.Time.IsZero() || got.Index == 0 {
			t.Errorf("event %d is %+v, want %+v", i, got, want)
		}
	}
	if _, err := steward.History(t.Context(), registrytest.Caller(), registrytest.Digest(registrytest.Mirrored, f.Image.Digest)); errdef.ReasonOf(err) != errdef.UsageInvalid {
		t.Errorf("the history of a digest: %v", err)
	}
}

// TestExplain: what it says is what a caller gets.
func TestExplain(t *testing.T) {
	f, steward := newSteward(t)
	tag := registrytest.Tag(registrytest.Mirrored, "v1")
	explain := func(want string) {
		t.Helper()
		explained, err := steward.Explain(t.Context(), registrytest.Caller(), tag)
		if err != nil || !strings.HasPrefix(explained.Decision, want) || len(explained.Fields) == 0 {
			t.Errorf("%+v, %v; want %s", explained, err, want)
		}
	}
	explain("fresh")
	f.Advance(registrytest.FreshFor + time.Second)
	explain("answered at once")
	f.Advance(registrytest.StaleFor / 2)
	explain("the upstream is asked first; if it fails, answered from here")
	f.Advance(registrytest.StaleFor)
	explain("too old")
	until := f.Now().Add(time.Minute)
	f.Apply(t, catalog.SetBackoff{Backoff: catalog.Backoff{Upstream: "up.test", Until: until, Reason: "UPSTREAM_THROTTLED", Node: "n1"}})
	if explained, err := steward.Explain(t.Context(), registrytest.Caller(), tag); err != nil || !explained.Backoff.Until.Equal(until) {
		t.Errorf("%+v, %v", explained, err)
	}
	tag = registrytest.Tag(registrytest.Mirrored, "never-seen")
	explain("not known")
	tag = registrytest.Digest(registrytest.Mirrored, f.Image.Digest)
	explain("too old")
	if f.Upstream.Asked() != 0 {
		t.Errorf("the upstream was asked %d times", f.Upstream.Asked())
	}
	tag = registrytest.Tag(registrytest.Unknown, "v1")
	if _, err := steward.Explain(t.Context(), registrytest.Caller(), tag); errdef.ReasonOf(err) != errdef.UpstreamUnknown {
		t.Errorf("an upstream that is not configured: %v", err)
	}
}
