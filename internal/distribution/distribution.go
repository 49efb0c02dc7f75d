// Package distribution serves the OCI distribution API (`/v2/`) over the use cases of package registry.
//
// It translates HTTP and nothing else: no caching, no catalog, no upstreams. This version reads (pull, content
// discovery, referrers); a write is answered 405 UNSUPPORTED. The node's composition root mounts it on the registry
// address.
package distribution

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
)

// Observer is told of every finished request: the endpoint's name, the reason of failure ("" for none).
type Observer func(endpoint string, reason errdef.Reason)

// Handler serves `/v2/`. It is safe for concurrent use.
type Handler struct {
	registry registry.Registry
	logger   *slog.Logger
	observe  Observer
}

// New returns a Handler that answers from r.
func New(r registry.Registry, logger *slog.Logger, observe Observer) *Handler {
	return &Handler{registry: r, logger: logger, observe: observe}
}

// request is one parsed request.
type request struct {
	*http.Request
	principal registry.Principal
	target    registry.Target
}

// ServeHTTP routes by the path's last words, since repository names contain slashes.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	w.Header().Set("X-Content-Type-Options", "nosniff") // content is anybody's; a browser must not guess what it is
	route, parsed, err := h.parse(r)
	if err == nil {
		err = route.serve(h, w, parsed)
	}
	h.observe(route.name, errdef.ReasonOf(err))
	var cut *cutError
	switch {
	case errors.As(err, &cut):
		h.cut(r, err)
	case err != nil:
		h.fail(w, r, route, err)
	}
}

func (h *Handler) parse(r *http.Request) (route, request, error) {
	route, name, ref, err := match(r.URL.Path)
	if err != nil {
		return route, request{}, err
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return route, request{}, errdef.New(errdef.Unsupported, "%s is not supported here", r.Method).
			WithRemedy("this version reads only: push to the upstream registry")
	}
	parsed := request{Request: r, principal: registry.Principal{Name: "anonymous", Tenant: reference.DefaultTenant}}
	if name == "" {
		return route, parsed, nil
	}
	repository, err := reference.ParseRepository(name)
	if err != nil {
		return route, request{}, err
	}
	parsed.target.Reference = reference.Reference{Repository: repository}
	if ref == "" {
		return route, parsed, nil
	}
	parsed.target.Reference, err = reference.ParseTagOrDigest(repository, ref)
	if err == nil && route.digestOnly && parsed.target.Reference.Digest == "" {
		err = errdef.New(errdef.DigestInvalid, "%q is not a digest", ref).
			WithRemedy("name a digest, for example sha256:...")
	}
	return route, parsed, err
}
