package policy

import (
	"errors"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

func TestPattern(t *testing.T) {
	for _, c := range []struct {
		pattern string
		match   []string
		differ  []string
	}{
		{"ghcr.io/org/app", []string{"ghcr.io/org/app"}, []string{"ghcr.io/org/app2", "ghcr.io/org", "ghcr.io/org/app/x"}},
		{"ghcr.io/**", []string{"ghcr.io/app", "ghcr.io/org/app", "ghcr.io/a/b/c", "ghcr.io"}, []string{"ghcrxio/a", "quay.io/a"}},
		{"ghcr.io/org/*", []string{"ghcr.io/org/app"}, []string{"ghcr.io/org", "ghcr.io/org/a/b", "ghcr.io/other/app"}},
		{"*/library/*", []string{"docker.io/library/nginx"}, []string{"docker.io/nginx", "docker.io/library/a/b"}},
		{"**", []string{"a", "a/b/c"}, nil},
		{"**/charts/**", []string{"charts", "a/charts", "a/b/charts/c/d"}, []string{"a/chart/b"}},
		{"**/a/**/a/b", []string{"a/a/b", "x/a/y/a/a/b"}, []string{"a/b", "a/b/a", "x/a/y/a/a/b/c"}},
		{"a/**/**/b", []string{"a/b", "a/x/b"}, []string{"a", "b"}},
		{"ghcr.io/team-[ab]/app-?", []string{"ghcr.io/team-a/app-1"}, []string{"ghcr.io/team-c/app-1", "ghcr.io/team-a/app-12"}},
		{"ghcr.io/*-prod/**", []string{"ghcr.io/x-prod/a"}, []string{"ghcr.io/x-dev/a"}},
	} {
		pattern, err := ParsePattern(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		for _, name := range c.match {
			if !pattern.Match(reference.Repository(name)) {
				t.Errorf("%s does not match %s", c.pattern, name)
			}
		}
		for _, name := range c.differ {
			if pattern.Match(reference.Repository(name)) {
				t.Errorf("%s matches %s", c.pattern, name)
			}
		}
	}
}

func TestWrongPattern(t *testing.T) {
	for _, text := range []string{
		"", "/", "a/", "/a", "a//b", "GHCR.io/**", "a/***", "a/b**", "a/**b", "[", "a/[b", "a/[]", `a/\*`, "a b", "ghcr.io/a:b",
		"https://ghcr.io/**", strings.Repeat("a", maxPattern+1),
	} {
		if _, err := ParsePattern(text); !errors.Is(err, errdef.ErrConfigInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestCovers(t *testing.T) {
	for pattern, want := range map[string]bool{
		"ghcr.io/**": true, "**": true, "*/**": true, "*.io/org/app": true, "ghcr.io": false, "quay.io/**": false, "**/app": true,
	} {
		parsed, err := ParsePattern(pattern)
		if err != nil || parsed.Covers("ghcr.io") != want {
			t.Errorf("%s: %t, %v", pattern, parsed.Covers("ghcr.io"), err)
		}
	}
}

// expression is another reading of a pattern: a regular expression.
func expression(pattern string) *regexp.Regexp {
	text := ""
	for segment := range strings.SplitSeq(pattern, "/") {
		if segment == anySegments {
			text += `(/[^/]+)*`
			continue
		}
		text += "/" + strings.NewReplacer(".", `\.`, "*", "[^/]*", "?", "[^/]").Replace(segment)
	}
	return regexp.MustCompile("^" + text + "$")
}

// Patterns and names made of few letters collide in all ways; two readings of them agree.
func TestPatternIsARegularExpression(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	draw := func(words []string) string {
		segments := make([]string, 1+random.IntN(6))
		for i := range segments {
			segments[i] = words[random.IntN(len(words))]
		}
		return strings.Join(segments, "/")
	}
	matched := 0
	for range 3_000 {
		text := draw([]string{"**", "**", "*", "a", "b", "a*", "?b"})
		pattern, err := ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		reading := expression(text)
		for range 10 {
			name := draw([]string{"a", "b", "ab", "a.b"})
			want := reading.MatchString("/" + name)
			if got := pattern.Match(reference.Repository(name)); got != want {
				t.Fatalf("%s and %s: %t", text, name, got)
			}
			if want {
				matched++
			}
		}
	}
	if matched < 3_000 {
		t.Errorf("only %d matched", matched)
	}
}

// FuzzPattern holds that no text makes the parser or the matcher panic or run for long, and that a name without
// wildcards matches itself and nothing else.
func FuzzPattern(f *testing.F) {
	for _, seed := range []string{"ghcr.io/**", "**/a/**/*", "[a-", "a/[^b]", `\`, strings.Repeat("**/a*a*/", 30) + "b"} {
		f.Add(seed, "ghcr.io/org/app")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		_ = checkTagPattern(text)
		pattern, err := ParsePattern(text)
		if err != nil {
			if errdef.ReasonOf(err) != errdef.ConfigInvalid {
				t.Errorf("reason %s", errdef.ReasonOf(err))
			}
			return
		}
		if _, err := reference.ParseRepository(name); err != nil {
			return
		}
		matched := pattern.Match(reference.Repository(name))
		if exact, ok := pattern.Exact(); ok && matched != (string(exact) == name) {
			t.Errorf("%s and %s: %t", text, name, matched)
		}
		host, path := reference.Repository(name).UpstreamHost()
		if matched && path != "" && !pattern.Covers(host) {
			t.Errorf("%s matches %s and does not cover %s", text, name, host)
		}
	})
}
