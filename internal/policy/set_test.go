package policy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

const app = reference.Repository("ghcr.io/org/app")

var frozen = digest.FromString("frozen")

func newSet(t testing.TB, rules ...Rule) *Set {
	t.Helper()
	set, err := NewSet(rules)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func pinned(tags ...reference.Tag) map[reference.Tag]digest.Digest {
	pins := map[reference.Tag]digest.Digest{}
	for _, tag := range tags {
		pins[tag] = frozen
	}
	return pins
}

func TestWithoutRules(t *testing.T) {
	if got := newSet(t).For(app); !reflect.DeepEqual(*got, Default()) {
		t.Errorf("got %+v", got)
	}
}

// All rules that match apply; the last one that sets a field wins, however special the others are.
func TestLastRuleWins(t *testing.T) {
	set := newSet(t,
		Rule{Match: "ghcr.io/**", FreshFor: new(time.Minute), StaleFor: new(time.Hour), ImmutableTags: []string{"v*"}},
		Rule{Match: "ghcr.io/org/app", FreshFor: new(time.Second), PrefetchDepth: new(0), PinnedTags: pinned("v1")},
		Rule{Match: "**", FreshFor: new(2 * time.Minute)},
		Rule{Match: "ghcr.io/org/app", ImmutableTags: []string{}, PinnedTags: pinned("v2")},
	)
	want := Default()
	want.FreshFor, want.StaleFor, want.PrefetchDepth = 2*time.Minute, time.Hour, 0
	want.Immutable, want.Pinned = []string{}, pinned("v1", "v2")
	if got := set.For(app); !reflect.DeepEqual(*got, want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
	if other := set.For("ghcr.io/other"); !other.IsImmutable("v1") || other.IsImmutable("main") || len(other.Pinned) > 0 {
		t.Errorf("another repository: %+v", other)
	}
	if elsewhere := set.For("quay.io/app"); elsewhere.FreshFor != 2*time.Minute || elsewhere.StaleFor != Default().StaleFor {
		t.Errorf("another upstream: %+v", elsewhere)
	}
}

func TestPinned(t *testing.T) {
	set := newSet(t, Rule{Match: string(app), PinnedTags: pinned("v1")})
	for _, c := range []struct {
		repository reference.Repository
		tag        reference.Tag
		want       digest.Digest
	}{{app, "v1", frozen}, {app, "v2", ""}, {"ghcr.io/org/app2", "v1", ""}} {
		if got, found := set.Pinned(c.repository, c.tag); got != c.want || found != (c.want != "") {
			t.Errorf("%s:%s: %s, %t", c.repository, c.tag, got, found)
		}
	}
}

func TestImmutable(t *testing.T) {
	p := Policy{Immutable: []string{"v[0-9]*.*.*", "sha-*", "stable"}}
	for tag, want := range map[reference.Tag]bool{
		"v1.2.3": true, "v1": false, "vx.y.z": false, "sha-12ab": true, "stable": true, "stable2": false, "latest": false,
	} {
		if p.IsImmutable(tag) != want {
			t.Errorf("%s: %t", tag, !want)
		}
	}
}

func TestWrongRules(t *testing.T) {
	for want, rule := range map[string]Rule{
		"is not a pattern of repository names": {Match: "GHCR.io/**"},
		"fresh-for of -1s":                     {Match: "**", FreshFor: new(-time.Second)},
		"stale-for of":                         {Match: "**", StaleFor: new(MaxTime + 1)},
		"prefetch-depth of 9":                  {Match: "**", PrefetchDepth: new(9)},
		"prefetch-bytes of 65MiB":              {Match: "**", PrefetchBytes: new(int64(65 << 20))},
		`"v1 " is not a pattern of tags`:       {Match: "**", ImmutableTags: []string{"v1 "}},
		`"[" is not a pattern of tags`:         {Match: "**", ImmutableTags: []string{"["}},
		"which may match several repositories": {Match: "ghcr.io/org/*", PinnedTags: pinned("v1")},
		`".v1" is not a tag`:                   {Match: "ghcr.io/app", PinnedTags: pinned(".v1")},
		`"sha256:1" is not a digest`:           {Match: "ghcr.io/app", PinnedTags: map[reference.Tag]digest.Digest{"v1": "sha256:1"}},
	} {
		_, err := NewSet([]Rule{{Match: "**"}, rule})
		if !errors.Is(err, errdef.ErrConfigInvalid) || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "rule 2 ("+rule.Match+")") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestExplain(t *testing.T) {
	set := newSet(t,
		Rule{Match: "ghcr.io/**", FreshFor: new(90 * time.Minute), ImmutableTags: []string{"v*", "sha-*"}},
		Rule{Match: string(app), PrefetchBytes: new(int64(4 << 20)), PinnedTags: pinned("v1", "fresh-for")},
	)
	first, second := "rule 1 (ghcr.io/**)", "rule 2 (ghcr.io/org/app)"
	want := []Field{
		{"fresh-for", "1h30m", first}, {"revalidate-for", "1m", "default"}, {"stale-for", "24h", "default"},
		{"absent-for", "10s", "default"}, {"referrers-fresh-for", "5m", "default"},
		{"immutable-tags", "v*, sha-*", first}, {"prefetch-depth", "2", "default"}, {"prefetch-bytes", "4MiB", second},
		{"pinned-tags", "fresh-for=" + frozen.String(), second}, {"pinned-tags", "v1=" + frozen.String(), second},
	}
	if got := set.Explain(app); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// Whatever the rules: For, asked in any order, from many goroutines, and past what is remembered, says what applying the
// rules one after the other says.
func TestForIsTheOrderOfRules(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	patterns := []string{"**", "a/**", "*/b", "a/b", "c/*", "a/*/c"}
	rules, parsed := make([]Rule, 12), make([]Pattern, 12)
	for i := range rules {
		rules[i] = Rule{Match: patterns[random.IntN(len(patterns))]}
		parsed[i], _ = ParsePattern(rules[i].Match) // NewSet says what is wrong
		if random.IntN(2) == 0 {
			rules[i].FreshFor = new(time.Duration(i) * time.Second)
		}
		if random.IntN(2) == 0 {
			rules[i].PrefetchDepth = new(i % MaxPrefetchDepth)
		}
	}
	set := newSet(t, rules...)
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for i := range maxRemembered + 100 {
				for _, name := range []string{"a/b", "a/x/c", fmt.Sprintf("n%d/b", i)} {
					want := Default()
					for n, rule := range rules {
						if !parsed[n].Match(reference.Repository(name)) {
							continue
						}
						if rule.FreshFor != nil {
							want.FreshFor = *rule.FreshFor
						}
						if rule.PrefetchDepth != nil {
							want.PrefetchDepth = *rule.PrefetchDepth
						}
					}
					got := set.For(reference.Repository(name))
					if got.FreshFor != want.FreshFor || got.PrefetchDepth != want.PrefetchDepth {
						t.Errorf("%s: %+v, want %+v", name, *got, want)
						return
					}
				}
			}
		})
	}
	readers.Wait()
	if len(set.remembered) > maxRemembered {
		t.Errorf("%d repositories are remembered", len(set.remembered))
	}
}

func TestWarmPathAllocatesNothing(t *testing.T) {
	for name, set := range map[string]*Set{
		"no rules": Defaults(), "rules": newSet(t, Rule{Match: "ghcr.io/**", FreshFor: new(time.Minute)}),
	} {
		set.For(app)
		got := testing.AllocsPerRun(100, func() {
			set.For(app)
			set.Pinned(app, "v1")
		})
		if got != 0 {
			t.Errorf("%s: %.0f allocations", name, got)
		}
	}
}
