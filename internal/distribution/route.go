package distribution

import (
	"net/http"
	"strings"

	"github.com/ocistern/ocistern/internal/errdef"
)

// route is one endpoint of the distribution spec.
type route struct {
	name       string
	word       string // between repository name and reference
	digestOnly bool
	unknown    string // error code for what is not found; MANIFEST_UNKNOWN when empty
	serve      func(*Handler, http.ResponseWriter, request) error
}

func routes() []route {
	return []route{
		{name: "manifest", word: "/manifests/", serve: (*Handler).manifest},
		{name: "blob", word: "/blobs/", digestOnly: true, unknown: "BLOB_UNKNOWN", serve: (*Handler).blob},
		{name: "referrers", word: "/referrers/", digestOnly: true, serve: (*Handler).referrers},
	}
}

// match finds the endpoint of a path, the repository name and the reference in it.
func match(path string) (route, string, string, error) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	switch {
	case path == "/v2" || ok && rest == "":
		return route{name: "base", serve: (*Handler).base}, "", "", nil
	case !ok:
		return unknown(path)
	}
	if name, found := strings.CutSuffix(rest, "/tags/list"); found {
		return route{name: "tags", serve: (*Handler).tags}, name, "", nil
	}
	for _, candidate := range routes() {
		if i := strings.LastIndex(rest, candidate.word); i > 0 {
			ref := rest[i+len(candidate.word):]
			if ref != "" && !strings.Contains(ref, "/") {
				return candidate, rest[:i], ref, nil
			}
		}
	}
	return unknown(path)
}

func unknown(path string) (route, string, string, error) {
	err := errdef.New(errdef.NotFound, "no such endpoint: %.200q", path).
		WithRemedy("the API of the OCI distribution spec is under /v2/")
	return route{name: "unknown", unknown: "NAME_UNKNOWN"}, "", "", err
}
