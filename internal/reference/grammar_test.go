package reference

import (
	"math/rand/v2"
	"regexp"
	"testing"

	"github.com/opencontainers/go-digest"
)

// The grammars as the specifications have them.
var (
	repositoryPattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	tenantPattern     = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

// FuzzGrammar compares the written-out grammars with the specifications' regular expressions.
func FuzzGrammar(f *testing.F) {
	for _, seed := range []string{
		"", "a", "ghcr.io/org/app", "a__b", "a___b", "a._b", "a-_b", "a--b", "a..b", "-a", "a-", "a/", "/a", "a//b", "A", "é",
		"v1.0", ".v1", "_v1", "a\n", "sha256:00", string(digest.FromString("x")), digest.SHA512.FromString("x").String(),
		digest.SHA384.FromString("x").String(), "sha256:" + string(make([]byte, 64)),
	} {
		f.Add(seed)
	}
	f.Fuzz(compareGrammars)
}

// Texts made of what matters are tried even where nobody fuzzes.
func TestGrammar(t *testing.T) {
	const letters = "ab0._-/AZ:"
	for range 200_000 {
		text := make([]byte, rand.IntN(9))
		for i := range text {
			text[i] = letters[rand.IntN(len(letters))]
		}
		compareGrammars(t, string(text))
	}
}

func compareGrammars(t *testing.T, text string) {
	if got, want := isRepository(text), repositoryPattern.MatchString(text); got != want {
		t.Errorf("repository %q: %t", text, got)
	}
	if got, want := isTag(text), tagPattern.MatchString(text); got != want {
		t.Errorf("tag %q: %t", text, got)
	}
	if got, want := isTenant(text), tenantPattern.MatchString(text); got != want {
		t.Errorf("tenant %q: %t", text, got)
	}
	dgst := digest.Digest(text)
	known := dgst.Validate() == nil && (dgst.Algorithm() == digest.SHA256 || dgst.Algorithm() == digest.SHA512)
	if got := isDigest(text); got != known {
		t.Errorf("digest %q: %t", text, got)
	}
}
