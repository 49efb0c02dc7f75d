package reference

import (
	"strings"
	"testing"

	"github.com/ocistern/ocistern/internal/errdef"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParse(t *testing.T) {
	for _, c := range []struct {
		text string
		want string
		err  errdef.Reason
	}{
		{"ghcr.io/org/app:v1", "ghcr.io/org/app:v1", ""},
		{"ghcr.io/org/app@" + someDigest, "ghcr.io/org/app@" + someDigest, ""},
		{"ghcr.io/org/app:v1@" + someDigest, "ghcr.io/org/app@" + someDigest, ""},
		{"app:_x.y-Z", "app:_x.y-Z", ""},
		{"", "", errdef.ReferenceInvalid},
		{"ghcr.io/org/app", "", errdef.ReferenceInvalid},
		{"ghcr.io/../app:v1", "", errdef.NameInvalid},
		{"ghcr.io//app:v1", "", errdef.NameInvalid},
		{"/app:v1", "", errdef.NameInvalid},
		{"GHCR.io/app:v1", "", errdef.NameInvalid},
		{"localhost:5000/app:v1", "", errdef.NameInvalid},
		{strings.Repeat("a", 256) + ":v1", "", errdef.NameInvalid},
		{"app:", "", errdef.TagInvalid},
		{"app:.v1", "", errdef.TagInvalid},
		{"app:" + strings.Repeat("a", 129), "", errdef.TagInvalid},
		{"app@", "", errdef.DigestInvalid},
		{"app@sha256:ABC", "", errdef.DigestInvalid},
		{"app@md5:d41d8cd98f00b204e9800998ecf8427e", "", errdef.DigestInvalid},
		{"app@" + strings.ToUpper(someDigest), "", errdef.DigestInvalid},
		{strings.Repeat("a", 10000), "", errdef.ReferenceInvalid},
	} {
		got, err := Parse(c.text)
		if errdef.ReasonOf(err) != c.err {
			t.Errorf("Parse(%.60q) failed with %v, want reason %q", c.text, err, c.err)
			continue
		}
		if err == nil && got.String() != c.want {
			t.Errorf("Parse(%q) = %s, want %s", c.text, got, c.want)
		}
	}
}

// What Parse accepts prints to something Parse accepts again, unchanged, and cannot leave a directory.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"ghcr.io/org/app:v1", "a@" + someDigest, "a:b@" + someDigest, "../a:b", "a/../b:c", "a:b:c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := Parse(text)
		if err != nil {
			if errdef.ReasonOf(err) == errdef.Internal {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if (ref.Tag == "") == (ref.Digest == "") {
			t.Fatalf("%+v must name exactly one of tag and digest", ref)
		}
		if strings.Contains(string(ref.Repository), "..") {
			t.Fatalf("repository %q escapes", ref.Repository)
		}
		again, err := Parse(ref.String())
		if err != nil || again != ref {
			t.Fatalf("%v became %v, %v", ref, again, err)
		}
	})
}

func FuzzParseDigest(f *testing.F) {
	hex := strings.Repeat("0123456789abcdef", 8)
	for _, seed := range []string{"sha256:" + hex[:64], "sha512:" + hex, "sha384:" + hex[:96], "sha256:" + hex[:63], ":", "sha256:../"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		dgst, err := ParseDigest(text)
		if err != nil {
			if errdef.ReasonOf(err) != errdef.DigestInvalid {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if dgst.String() != text || strings.ContainsAny(dgst.Encoded(), "/.") || !dgst.Algorithm().Available() {
			t.Fatalf("%q was accepted as %q", text, dgst)
		}
	})
}
