package distribution

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
)

// base answers the API version check ("Determining Support").
func (h *Handler) base(w http.ResponseWriter, r request) error {
	return writeJSON(w, r, "application/json", struct{}{})
}

// manifest answers "Pulling manifests".
func (h *Handler) manifest(w http.ResponseWriter, r request) error {
	found, err := h.registry.FetchManifest(r.Context(), r.principal, r.target)
	if err != nil {
		return err
	}
	declare(w, found.Provenance)
	return writeContent(w, r, found.Descriptor, found.Content)
}

// blob answers "Pulling blobs", with one byte range.
func (h *Handler) blob(w http.ResponseWriter, r request) error {
	offset, ranged, err := parseRange(r.Header.Get("Range"))
	if err != nil {
		return err
	}
	found, err := h.registry.FetchBlob(r.Context(), r.principal, r.target, offset)
	if err != nil {
		return err
	}
	defer found.Content.Close()
	size := found.Descriptor.Size
	if ranged.end < 0 || ranged.end >= size {
		ranged.end = size - 1
	}
	declare(w, found.Provenance)
	w.Header().Set("Docker-Content-Digest", found.Descriptor.Digest.String())
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Accept-Ranges", "bytes")
	length := ranged.end - offset + 1
	w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
	if ranged.asked {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", offset, ranged.end, size))
		w.WriteHeader(http.StatusPartialContent)
	}
	if r.Method == http.MethodHead {
		return nil
	}
	if _, err := io.CopyN(w, found.Content, length); err != nil {
		// The header is out: only a cut connection tells the caller that the body is not whole.
		h.logger.Warn("blob response cut", "repository", r.target.Reference.Repository, "digest", r.reference, "error", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// referrers answers "Listing Referrers".
func (h *Handler) referrers(w http.ResponseWriter, r request) error {
	artifactType := r.URL.Query().Get("artifactType")
	found, err := h.registry.Referrers(r.Context(), r.principal, r.target, artifactType)
	if err != nil {
		return err
	}
	if artifactType != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	declare(w, found.Provenance)
	list := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: found.Descriptors,
	}
	if list.Manifests == nil {
		list.Manifests = []ocispec.Descriptor{}
	}
	return writeJSON(w, r, ocispec.MediaTypeImageIndex, list)
}

// tagsLimit bounds a page of tags.
const tagsLimit = 1000

// tags answers "Content Discovery". It lists what the cluster knows, not what the upstream has.
func (h *Handler) tags(w http.ResponseWriter, r request) error {
	query, limit := r.URL.Query(), tagsLimit
	if text := query.Get("n"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return errdef.New(errdef.UsageInvalid, "n=%.20q is not a number of tags", text).WithRemedy("a whole number from 0 to %d", tagsLimit)
		}
		limit = min(n, tagsLimit)
	}
	last := reference.Tag(query.Get("last"))
	page, err := h.registry.Tags(r.Context(), r.principal, r.target, last, limit)
	if err != nil {
		return err
	}
	declare(w, page.Provenance)
	if page.More && len(page.Tags) > 0 {
		next := url.Values{"n": {strconv.Itoa(limit)}, "last": {string(page.Tags[len(page.Tags)-1])}}
		w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, r.URL.Path, next.Encode()))
	}
	if page.Tags == nil {
		page.Tags = []reference.Tag{}
	}
	return writeJSON(w, r, "application/json", map[string]any{"name": r.target.Reference.Repository, "tags": page.Tags})
}

// declare puts the provenance of an answer into headers (guarantee G6).
func declare(w http.ResponseWriter, p registry.Provenance) {
	header := w.Header()
	header.Set("Ocistern-Catalog-Index", strconv.FormatUint(uint64(p.Index), 10))
	header.Set("Ocistern-Source", map[catalog.Source]string{catalog.SourceUpstream: "upstream", catalog.SourcePushed: "pushed"}[p.Source])
	if !p.Observed.IsZero() {
		header.Set("Age", strconv.FormatInt(max(0, int64(time.Since(p.Observed)/time.Second)), 10))
	}
	if !p.Fresh {
		header.Set("Ocistern-Stale", p.StaleReason)
	}
}

func writeJSON(w http.ResponseWriter, r request, mediaType string, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return errdef.Wrap(errdef.Internal, err, "cannot encode the answer")
	}
	return writeContent(w, r, ocispec.Descriptor{MediaType: mediaType, Size: int64(len(body))}, body)
}

// writeContent sends a whole body; a caller that went away is not our failure.
func writeContent(w http.ResponseWriter, r request, desc ocispec.Descriptor, body []byte) error {
	w.Header().Set("Content-Type", desc.MediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if desc.Digest != "" {
		w.Header().Set("Docker-Content-Digest", desc.Digest.String())
	}
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
	return nil
}
