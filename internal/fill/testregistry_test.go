package fill

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// testRegistry is a small real registry over HTTP: what is pushed to it can be pulled by the distribution API, every
// request is counted, and any answer can be spoiled.
type testRegistry struct {
	*httptest.Server
	noReferrersAPI bool
	pageSize       int             // of the referrers API; 0 for one page
	configure      func(*Upstream) // how it is configured besides its URL

	// mu guards the fields below.
	mu        sync.Mutex
	blobs     map[string][]byte // by repository@digest
	manifests map[string]served // by repository@digest and repository:tag
	requests  map[string]int    // by path
	sent      int64             // bytes of blobs
	// spoil, when set, may answer a request instead of the registry; it returns false to let it pass.
	spoil func(w http.ResponseWriter, r *http.Request) bool
}

type served struct {
	mediaType string
	body      []byte
}

func newTestRegistry(t *testing.T) *testRegistry {
	t.Helper()
	r := &testRegistry{blobs: map[string][]byte{}, manifests: map[string]served{}, requests: map[string]int{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *testRegistry) upstream() Upstream {
	given := Upstream{Name: "up.test", URL: r.URL}
	if r.configure != nil {
		r.configure(&given)
	}
	return given
}

// setSpoil replaces how answers are spoiled.
func (r *testRegistry) setSpoil(spoil func(http.ResponseWriter, *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spoil = spoil
}

// counts returns how often each path was asked for, and forgets it.
func (r *testRegistry) counts() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	counted := maps.Clone(r.requests)
	clear(r.requests)
	return counted
}

func (r *testRegistry) pushBlob(repository, mediaType string, body []byte) ocispec.Descriptor {
	r.mu.Lock()
	defer r.mu.Unlock()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
	r.blobs[repository+"@"+desc.Digest.String()] = body
	return desc
}

func (r *testRegistry) pushManifest(repository, tag, mediaType string, manifest any) ocispec.Descriptor {
	body, err := json.Marshal(manifest)
	if err != nil {
		panic(err)
	}
	return r.pushBytes(repository, tag, mediaType, body)
}

func (r *testRegistry) pushBytes(repository, tag, mediaType string, body []byte) ocispec.Descriptor {
	r.mu.Lock()
	defer r.mu.Unlock()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
	r.manifests[repository+"@"+desc.Digest.String()] = served{mediaType, body}
	if tag != "" {
		r.manifests[repository+":"+tag] = served{mediaType, body}
	}
	return desc
}

// pushImage pushes an image of one layer and returns its manifest.
func (r *testRegistry) pushImage(repository, tag string, layer []byte) (ocispec.Descriptor, []ocispec.Descriptor) {
	config := r.pushBlob(repository, ocispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux"}`))
	blob := r.pushBlob(repository, ocispec.MediaTypeImageLayer, layer)
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: []ocispec.Descriptor{blob},
	}
	return r.pushManifest(repository, tag, manifest.MediaType, manifest), []ocispec.Descriptor{config, blob}
}

// pushReferrer pushes signature number n of a subject, and the referrers tag where there is no API.
func (r *testRegistry) pushReferrer(repository string, subject ocispec.Descriptor, n int) ocispec.Descriptor {
	config := r.pushBlob(repository, ocispec.MediaTypeEmptyJSON, []byte(`{}`))
	envelope := r.pushBlob(repository, "application/jose+json", fmt.Appendf(nil, "signature %d", n))
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.test.signature", Config: config, Layers: []ocispec.Descriptor{envelope},
		Subject: &subject, Annotations: map[string]string{"n": strconv.Itoa(n)},
	}
	desc := r.pushManifest(repository, "", manifest.MediaType, manifest)
	if r.noReferrersAPI {
		index, _ := r.referrersOf(repository, subject.Digest)
		r.pushManifest(repository, strings.Replace(subject.Digest.String(), ":", "-", 1), ocispec.MediaTypeImageIndex, index)
	}
	return desc
}

func (r *testRegistry) referrersOf(repository string, subject digest.Digest) (ocispec.Index, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	}
	for name, found := range r.manifests {
		var manifest ocispec.Manifest
		if err := json.Unmarshal(found.body, &manifest); err != nil || manifest.Subject == nil {
			continue
		}
		if strings.HasPrefix(name, repository+"@") && manifest.Subject.Digest == subject {
			index.Manifests = append(index.Manifests, ocispec.Descriptor{
				MediaType: found.mediaType, Digest: digest.FromBytes(found.body), Size: int64(len(found.body)),
				ArtifactType: manifest.ArtifactType, Annotations: manifest.Annotations,
			})
		}
	}
	return index, len(index.Manifests)
}

// ServeHTTP implements the pull part of the distribution API.
func (r *testRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.requests[req.URL.Path]++
	spoil := r.spoil
	r.mu.Unlock()
	if endpoint, _ := endpointOf(req.URL.Path); endpoint == operationBlob {
		w = sentWriter{w, r}
	}
	if spoil != nil && spoil(w, req) {
		return
	}
	r.serve(w, req)
}

func (r *testRegistry) serve(w http.ResponseWriter, req *http.Request) {
	endpoint, ref := endpointOf(req.URL.Path)
	repository := strings.TrimPrefix(req.URL.Path, "/v2/")
	for range 2 {
		repository = repository[:max(0, strings.LastIndexByte(repository, '/'))]
	}
	key := repository + ":" + ref
	if strings.Contains(ref, ":") {
		key = repository + "@" + ref
	}
	r.mu.Lock()
	manifest, isManifest := r.manifests[key]
	blob, isBlob := r.blobs[key]
	r.mu.Unlock()
	switch {
	case endpoint == operationManifest && isManifest:
		w.Header().Set("Content-Type", manifest.mediaType)
		w.Header().Set(headerDigest, digest.FromBytes(manifest.body).String())
		writeWhole(w, manifest.body)
	case endpoint == operationBlob && isBlob:
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(blob))
	case endpoint == operationReferrers && !r.noReferrersAPI:
		r.serveReferrers(w, req, repository, digest.Digest(ref))
	case endpoint == operationReferrers:
		http.NotFound(w, req) // as CNCF distribution v3 does: it has no such route
	default:
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"not here"}]}`)
	}
}

// sentWriter counts the bytes of blobs.
type sentWriter struct {
	http.ResponseWriter
	registry *testRegistry
}

func (w sentWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.registry.mu.Lock()
	defer w.registry.mu.Unlock()
	w.registry.sent += int64(n)
	return n, err
}

// Flush implements http.Flusher.
func (w sentWriter) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

// sentBytes returns how many bytes of blobs were sent, and forgets it.
func (r *testRegistry) sentBytes() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	sent := r.sent
	r.sent = 0
	return sent
}

func (r *testRegistry) serveReferrers(
	w http.ResponseWriter, req *http.Request, repository string, subject digest.Digest,
) {
	index, total := r.referrersOf(repository, subject)
	sortByDigest(index.Manifests)
	first, _ := strconv.Atoi(req.URL.Query().Get("first"))
	if next := first + r.pageSize; r.pageSize > 0 && next < total {
		w.Header().Set("Link", fmt.Sprintf(`<%s?first=%d>; rel="next"`, req.URL.Path, next))
		index.Manifests = index.Manifests[:next]
	}
	index.Manifests = index.Manifests[first:]
	body, _ := json.Marshal(index)
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	writeWhole(w, body)
}

func sortByDigest(list []ocispec.Descriptor) {
	slices.SortFunc(list, func(a, b ocispec.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
}

func writeWhole(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}
