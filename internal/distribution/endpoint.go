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
	if r.Method == http.MethodHead && r.target.Reference.Tag != "" {
		return h.head(w, r, "")
	}
	// A digest may name a blob, which this endpoint must not answer for: only reading it as a manifest tells.
	found, err := h.registry.FetchManifest(r.Context(), r.principal, r.target)
	if err != nil {
		return err
	}
	declare(w, found.Provenance)
	return writeContent(w, r, found.Descriptor, found.Content)
}

// blobMediaType is the Content-Type of blobs: what a manifest calls them is none of this endpoint's business.
const blobMediaType = "application/octet-stream"

// head answers HEAD without opening content. The descriptor's media type is told unless mediaType says another.
func (h *Handler) head(w http.ResponseWriter, r request, mediaType string) error {
	found, err := h.registry.Resolve(r.Context(), r.principal, r.target)
	if err != nil {
		return err
	}
	if mediaType != "" {
		found.Descriptor.MediaType = mediaType
	}
	declare(w, found.Provenance)
	describe(w, found.Descriptor, found.Descriptor.Size)
	w.WriteHeader(http.StatusOK)
	return nil
}

// blob answers "Pulling blobs", with one byte range.
func (h *Handler) blob(w http.ResponseWriter, r request) error {
	w.Header().Set("Accept-Ranges", "bytes")
	if r.Method == http.MethodHead {
		return h.head(w, r, blobMediaType)
	}
	ranged, err := requestedRange(r.Header)
	if err != nil {
		return err
	}
	found, err := h.registry.FetchBlob(r.Context(), r.principal, r.target, ranged.first)
	if err != nil {
		return err
	}
	defer found.Content.Close()
	desc, status := found.Descriptor, http.StatusOK
	if ranged.last < 0 || ranged.last >= desc.Size {
		ranged.last = desc.Size - 1
	}
	declare(w, found.Provenance)
	length := ranged.last - ranged.first + 1
	describe(w, ocispec.Descriptor{MediaType: blobMediaType, Digest: desc.Digest}, length)
	if ranged.asked {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", ranged.first, ranged.last, desc.Size))
		status = http.StatusPartialContent
	}
	w.WriteHeader(status)
	if found.Provenance.Filled { // its bytes may be a long time coming, and clients give the header less
		_ = http.NewResponseController(w).Flush() // where that is not supported the header goes with the first bytes
	}
	// Content is handed over as it is: net/http sends a file without copying it through this process.
	if _, err := io.CopyN(w, found.Content, length); err != nil {
		return &cutError{cause: err}
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
			return errdef.New(errdef.UsageInvalid, "n=%.20q is not a number of tags", text).
				WithRemedy("a whole number from 0 to %d", tagsLimit)
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
	return writeJSON(w, r, "application/json", struct {
		Name reference.Repository `json:"name"`
		Tags []reference.Tag      `json:"tags"`
	}{r.target.Reference.Repository, page.Tags})
}

// declare puts the provenance of an answer into headers (guarantee G6).
func declare(w http.ResponseWriter, p registry.Provenance) {
	header := w.Header()
	header.Set("Ocistern-Catalog-Index", strconv.FormatUint(uint64(p.Index), 10))
	header.Set("Ocistern-Node", p.Node)
	header.Set("Ocistern-Why", string(p.Why))
	switch p.Source {
	case catalog.SourceUpstream:
		header.Set("Ocistern-Source", "upstream")
	case catalog.SourcePushed:
		header.Set("Ocistern-Source", "pushed")
	}
	if !p.Observed.IsZero() {
		header.Set("Ocistern-Observed", p.Observed.UTC().Format(time.RFC3339Nano))
		header.Set("Age", strconv.FormatInt(int64(p.Age/time.Second), 10))
	}
	if !p.Fresh {
		header.Set("Ocistern-Stale", p.StaleReason)
	}
}

// describe puts what a body is into headers.
func describe(w http.ResponseWriter, desc ocispec.Descriptor, length int64) {
	header := w.Header()
	header.Set("Content-Type", desc.MediaType)
	header.Set("Content-Length", strconv.FormatInt(length, 10))
	if desc.Digest != "" {
		header.Set("Docker-Content-Digest", desc.Digest.String())
	}
}

func writeJSON(w http.ResponseWriter, r request, mediaType string, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return errdef.Wrap(errdef.Internal, err, "cannot encode the answer")
	}
	return writeContent(w, r, ocispec.Descriptor{MediaType: mediaType}, body)
}

// writeContent sends a whole body.
func writeContent(w http.ResponseWriter, r request, desc ocispec.Descriptor, body []byte) error {
	describe(w, desc, int64(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	if _, err := w.Write(body); err != nil {
		return &cutError{cause: err}
	}
	return nil
}
