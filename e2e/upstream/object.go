package upstream

import (
	"net/http"
	"strings"
)

// Kind is what a request to the /v2/ API asks for.
type Kind string

// The kinds of requests, after the endpoints of the distribution spec.
const (
	Manifest  Kind = "manifest"
	Blob      Kind = "blob"
	Referrers Kind = "referrers"
	Tags      Kind = "tags"
	Other     Kind = "other" // the version check, uploads and everything else
)

// Object is what a read of the registry is about. Two requests for one object are one too many for a cache, whatever
// their method and whether they name it by tag or by digest.
type Object struct {
	Kind       Kind
	Repository string
	// Reference is the digest where the registry tells it (Docker-Content-Digest), else what the request names.
	Reference string
}

// String prints o for a failure message.
func (o Object) String() string { return string(o.Kind) + " " + o.Repository + " " + o.Reference }

// objectOf reads the object from a request's path: /v2/<repository>/<endpoint>/<reference>.
func objectOf(request *http.Request) Object {
	path, ok := strings.CutPrefix(request.URL.Path, "/v2/")
	if !ok {
		return Object{Kind: Other, Reference: request.URL.Path}
	}
	for _, endpoint := range []struct {
		part string
		kind Kind
	}{{"/manifests/", Manifest}, {"/referrers/", Referrers}, {"/tags/", Tags}, {"/blobs/", Blob}} {
		i := strings.LastIndex(path, endpoint.part)
		if i <= 0 {
			continue
		}
		reference := path[i+len(endpoint.part):]
		if strings.HasPrefix(reference, "uploads") {
			break
		}
		return Object{Kind: endpoint.kind, Repository: path[:i], Reference: reference}
	}
	return Object{Kind: Other, Reference: path}
}

// isRead tells whether a request reads an object, as a cache would.
func isRead(request *http.Request, object Object) bool {
	return object.Kind != Other && (request.Method == http.MethodGet || request.Method == http.MethodHead)
}
