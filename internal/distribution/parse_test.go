package distribution

import (
	"net/http"
	"strings"
	"testing"

	"github.com/ocistern/ocistern/internal/errdef"
)

// Every Range header is read as one range inside the numbers that exist, or ignored, or refused.
func FuzzRange(f *testing.F) {
	for _, seed := range []string{"bytes=0-1", "bytes=5-", "bytes=-5", "bytes=9-1", "bytes=0-1,3-4", "x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := requestedRange(http.Header{"Range": {text}})
		switch {
		case err != nil && errdef.ReasonOf(err) != errdef.RangeInvalid:
			t.Fatalf("%q: untyped error %v", text, err)
		case got.first < 0 || got.last < -1 || got.last >= 0 && got.last < got.first:
			t.Fatalf("%q was read as %+v", text, got)
		}
		conditional, err := requestedRange(http.Header{"Range": {text}, "If-Range": {`"x"`}})
		if err != nil || conditional.asked {
			t.Fatalf("%q with a condition was read as %+v, %v", text, conditional, err)
		}
	})
}

func FuzzMatch(f *testing.F) {
	f.Add("/v2/a/b/manifests/v1")
	f.Add("/v2/a/blobs/x/referrers/")
	f.Fuzz(func(t *testing.T, path string) {
		route, name, ref, err := match(path)
		if (err == nil) == (route.serve == nil) {
			t.Fatalf("%q: endpoint %q with error %v", path, route.name, err)
		}
		if err == nil && name != "" && !strings.HasPrefix(path, "/v2/"+name+"/") || strings.Contains(ref, "/") {
			t.Fatalf("%q split into %q and %q", path, name, ref)
		}
	})
}
