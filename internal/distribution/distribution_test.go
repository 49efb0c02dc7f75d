package distribution

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
)

// memoryRegistry serves one repository from an oras memory store: the real graph, without a cluster.
type memoryRegistry struct {
	*memory.Store
	tags  []reference.Tag
	fails error
	cut   int64 // length at which blob bodies end, when not 0
}

func provenance() registry.Provenance {
	return registry.Provenance{Index: 7, Source: catalog.SourceUpstream, Fresh: true, Node: "n1"}
}

func (m *memoryRegistry) Resolve(
	ctx context.Context, _ registry.Principal, target registry.Target,
) (registry.Resolved, error) {
	ref := string(target.Reference.Tag)
	if target.Reference.Digest != "" {
		ref = target.Reference.Digest.String()
	}
	desc, err := m.Store.Resolve(ctx, ref)
	if m.fails != nil {
		err = m.fails
	}
	return registry.Resolved{Descriptor: desc, Provenance: provenance()}, err
}

func (m *memoryRegistry) FetchManifest(
	ctx context.Context, p registry.Principal, target registry.Target,
) (registry.Manifest, error) {
	resolved, err := m.Resolve(ctx, p, target)
	if err != nil {
		return registry.Manifest{}, err
	}
	body, err := content.FetchAll(ctx, m.Store, resolved.Descriptor)
	return registry.Manifest{Descriptor: resolved.Descriptor, Content: body, Provenance: provenance()}, err
}

func (m *memoryRegistry) FetchBlob(
	ctx context.Context, p registry.Principal, target registry.Target, offset int64,
) (*registry.Blob, error) {
	resolved, err := m.Resolve(ctx, p, target)
	if err != nil {
		return nil, err
	}
	if offset >= resolved.Descriptor.Size {
		return nil, errdef.New(errdef.RangeInvalid, "offset %d is past the end", offset)
	}
	body, err := content.FetchAll(ctx, m.Store, resolved.Descriptor)
	if err != nil {
		return nil, err
	}
	reader := io.Reader(bytes.NewReader(body[offset:]))
	if m.cut > 0 {
		reader = io.LimitReader(reader, m.cut)
	}
	return &registry.Blob{Descriptor: resolved.Descriptor, Provenance: provenance(), Content: io.NopCloser(reader)}, nil
}

func (m *memoryRegistry) Referrers(
	ctx context.Context, p registry.Principal, target registry.Target, artifactType string,
) (registry.Referrers, error) {
	resolved, err := m.Resolve(ctx, p, target)
	if err != nil {
		return registry.Referrers{}, err
	}
	all, err := m.Predecessors(ctx, resolved.Descriptor)
	var kept []ocispec.Descriptor
	for _, desc := range all {
		if artifactType == "" || desc.ArtifactType == artifactType {
			kept = append(kept, desc)
		}
	}
	return registry.Referrers{Descriptors: kept, Provenance: provenance()}, err
}

func (m *memoryRegistry) Tags(
	_ context.Context, _ registry.Principal, _ registry.Target, last reference.Tag, limit int,
) (registry.TagPage, error) {
	var page registry.TagPage
	for _, tag := range m.tags {
		if tag > last && len(page.Tags) == limit {
			page.More = true
			break
		}
		if tag > last {
			page.Tags = append(page.Tags, tag)
		}
	}
	page.Provenance = provenance()
	return page, nil
}

// serve starts the API over a store that holds one image with one signature-like referrer.
func serve(t *testing.T) (m *memoryRegistry, server *httptest.Server, image, layer ocispec.Descriptor) {
	t.Helper()
	ctx := t.Context()
	m = &memoryRegistry{Store: memory.New(), tags: []reference.Tag{"a", "b", "c"}}
	layer = push(t, m.Store, "application/octet-stream", []byte("0123456789"))
	layers := oras.PackManifestOptions{Layers: []ocispec.Descriptor{layer}}
	image, err := oras.PackManifest(ctx, m.Store, oras.PackManifestVersion1_1, "test/image", layers)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Tag(ctx, image, "v1"); err != nil {
		t.Fatal(err)
	}
	subject := oras.PackManifestOptions{Subject: &image}
	_, err = oras.PackManifest(ctx, m.Store, oras.PackManifestVersion1_1, "test/signature", subject)
	if err != nil {
		t.Fatal(err)
	}
	// The memory store finds nothing by its digest unless that is tagged too.
	for _, desc := range []ocispec.Descriptor{image, layer, ocispec.DescriptorEmptyJSON} {
		if err := m.Tag(ctx, desc, desc.Digest.String()); err != nil {
			t.Fatal(err)
		}
	}
	server = httptest.NewServer(New(m, slog.New(slog.DiscardHandler), func(string, errdef.Reason) {}))
	t.Cleanup(server.Close)
	return m, server, image, layer
}

func push(t *testing.T, store *memory.Store, mediaType string, body []byte) ocispec.Descriptor {
	t.Helper()
	desc := content.NewDescriptorFromBytes(mediaType, body)
	if err := store.Push(t.Context(), desc, bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	return desc
}

// oras-go, as any verifier uses it, pulls, lists referrers and lists tags.
func TestOrasPulls(t *testing.T) {
	_, server, image, _ := serve(t)
	repo, err := remote.NewRepository(strings.TrimPrefix(server.URL, "http://") + "/up.test/app")
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	target := memory.New()
	got, err := oras.Copy(t.Context(), repo, "v1", target, "v1", oras.DefaultCopyOptions)
	if err != nil || got.Digest != image.Digest {
		t.Fatalf("copied %v, %v, want %s", got.Digest, err, image.Digest)
	}
	var referrers []ocispec.Descriptor
	err = repo.Referrers(t.Context(), image, "test/signature", func(page []ocispec.Descriptor) error {
		referrers = append(referrers, page...)
		return nil
	})
	if err != nil || len(referrers) != 1 {
		t.Fatalf("referrers %v, %v, want one", referrers, err)
	}
	repo.TagListPageSize = 2
	var tags []string
	err = repo.Tags(t.Context(), "", func(page []string) error { tags = append(tags, page...); return nil })
	if err != nil || strings.Join(tags, "") != "abc" {
		t.Fatalf("tags %v, %v, want a b c in two pages", tags, err)
	}
}

func TestAnswers(t *testing.T) {
	_, server, image, layer := serve(t)
	missing := digest.FromString("missing").String()
	for _, c := range []struct {
		method, path, ranges string
		status               int
		body                 string // contained
	}{
		{"GET", "/v2/", "", 200, "{}"},
		{"HEAD", "/v2/up.test/app/manifests/v1", "", 200, ""},
		{"HEAD", "/v2/up.test/app/manifests/nope", "", 404, ""},
		{"HEAD", "/v2/up.test/app/blobs/" + layer.Digest.String(), "bytes=2-4", 200, ""},
		{"HEAD", "/v2/up.test/app/blobs/" + missing, "", 404, ""},
		{"GET", "/v2/up.test/app/manifests/" + image.Digest.String(), "", 200, "test/image"},
		{"GET", "/v2/up.test/app/manifests/nope", "", 404, "MANIFEST_UNKNOWN"},
		{"GET", "/v2/up.test/../app/manifests/v1", "", 400, "NAME_INVALID"},
		{"GET", "/v2/UP/manifests/v1", "", 400, "NAME_INVALID"},
		{"GET", "/v2/up.test/app/manifests/.v1", "", 400, "TAG_INVALID"},
		{"GET", "/v2/up.test/app/blobs/v1", "", 400, "DIGEST_INVALID"},
		{"GET", "/v2/up.test/app/blobs/" + layer.Digest.String(), "", 200, "0123456789"},
		{"GET", "/v2/up.test/app/blobs/" + layer.Digest.String(), "bytes=2-4", 206, "234"},
		{"GET", "/v2/up.test/app/blobs/" + layer.Digest.String(), "bytes=7-", 206, "789"},
		{"GET", "/v2/up.test/app/blobs/" + layer.Digest.String(), "bytes=7-99", 206, "789"},
		{"GET", "/v2/up.test/app/blobs/" + layer.Digest.String(), "bytes=0-1,3-4", 200, "0123456789"},
		{"GET", "/v2/up.test/app/blobs/" + layer.Digest.String(), "bytes=10-", 416, "errors"},
		{"GET", "/v2/up.test/app/blobs/" + layer.Digest.String(), "bytes=4-2", 416, "errors"},
		{"GET", "/v2/up.test/app/blobs/" + layer.Digest.String(), "bytes=9999999999999999999-", 416, "errors"},
		{"GET", "/v2/up.test/app/blobs/" + missing, "", 404, "BLOB_UNKNOWN"},
		{"GET", "/v2/up.test/app/referrers/" + image.Digest.String() + "?artifactType=none", "", 200, `"manifests":[]`},
		{"GET", "/v2/up.test/app/tags/list?n=x", "", 400, "errors"},
		{"PUT", "/v2/up.test/app/manifests/v1", "", 405, "UNSUPPORTED"},
		{"GET", "/v2/up.test/app", "", 404, "errors"},
		{"GET", "/", "", 404, "errors"},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.URL.Path, request.URL.RawQuery, _ = strings.Cut(c.path, "?")
		if c.ranges != "" {
			request.Header.Set("Range", c.ranges)
		}
		response, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != c.status || !strings.Contains(string(body), c.body) {
			t.Errorf("%s %s (%s) gave %d %.120q, %v; want %d with %q",
				c.method, c.path, c.ranges, response.StatusCode, body, err, c.status, c.body)
		}
		if c.method != "HEAD" && response.StatusCode >= 400 && !json.Valid(body) {
			t.Errorf("%s %s: error body is not JSON: %q", c.method, c.path, body)
		}
	}
}

// G5: what is no definite absence never looks like one, and a referrers failure never looks empty.
func TestFailureIsNeverAnAbsence(t *testing.T) {
	m, server, image, _ := serve(t)
	for _, reason := range []errdef.Reason{
		errdef.UpstreamUnauthorized, errdef.UpstreamDenied, errdef.UpstreamThrottled, errdef.UpstreamUnavailable,
		errdef.UpstreamTimeout, errdef.NoQuorum, errdef.Internal,
	} {
		m.fails = errdef.New(reason, "planted")
		for _, path := range []string{"manifests/v1", "referrers/" + image.Digest.String()} {
			response, err := server.Client().Get(server.URL + "/v2/up.test/app/" + path)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode < 429 {
				t.Errorf("%s: %s answered %d", reason, path, response.StatusCode)
			}
		}
	}
}

// sealed resolves, and opens no content.
type sealed struct{ *memoryRegistry }

func (sealed) FetchBlob(context.Context, registry.Principal, registry.Target, int64) (*registry.Blob, error) {
	return nil, errdef.New(errdef.Internal, "content was opened")
}

func (sealed) FetchManifest(context.Context, registry.Principal, registry.Target) (registry.Manifest, error) {
	return registry.Manifest{}, errdef.New(errdef.Internal, "content was opened")
}

// HEAD of a blob or a tag tells the same as GET without opening the content.
func TestHeadOpensNothing(t *testing.T) {
	m, server, _, layer := serve(t)
	shut := httptest.NewServer(New(sealed{m}, slog.New(slog.DiscardHandler), func(string, errdef.Reason) {}))
	t.Cleanup(shut.Close)
	for _, path := range []string{"blobs/" + layer.Digest.String(), "manifests/v1"} {
		head, err := shut.Client().Head(shut.URL + "/v2/up.test/app/" + path)
		if err != nil {
			t.Fatal(err)
		}
		head.Body.Close()
		get, err := server.Client().Get(server.URL + "/v2/up.test/app/" + path)
		if err != nil {
			t.Fatal(err)
		}
		get.Body.Close()
		head.Header.Del("Date")
		get.Header.Del("Date")
		if head.StatusCode != http.StatusOK || !reflect.DeepEqual(head.Header, get.Header) {
			t.Errorf("%s: HEAD gave %d %v, GET %v", path, head.StatusCode, head.Header, get.Header)
		}
	}
}

// A body that cannot be finished cuts the connection, so that the caller does not take it for whole: one so short that
// not even the header has left, and a long one.
func TestCutBodyIsSeen(t *testing.T) {
	for _, size := range []int{10, 1_000_000} {
		m, server, _, _ := serve(t)
		blob := push(t, m.Store, "application/octet-stream", bytes.Repeat([]byte("x"), size))
		if err := m.Tag(t.Context(), blob, blob.Digest.String()); err != nil {
			t.Fatal(err)
		}
		m.cut = blob.Size - 1
		response, err := server.Client().Get(server.URL + "/v2/up.test/app/blobs/" + blob.Digest.String())
		if err != nil && size == 10 {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err == nil {
			t.Errorf("read %d bytes of %d as if they were whole", len(body), blob.Size)
		}
	}
}

// arriving is a registry whose blobs have not arrived yet.
type arriving struct{ *memoryRegistry }

func (a arriving) FetchBlob(
	ctx context.Context, principal registry.Principal, target registry.Target, offset int64,
) (*registry.Blob, error) {
	blob, err := a.memoryRegistry.FetchBlob(ctx, principal, target, offset)
	if err == nil {
		content, _ := io.Pipe()
		blob.Content, blob.Provenance.Filled = content, true
		context.AfterFunc(ctx, func() { _ = content.Close() })
	}
	return blob, err
}

// The header of content that is arriving does not wait for its bytes.
func TestTheHeaderComesFirst(t *testing.T) {
	m, _, _, layer := serve(t)
	server := httptest.NewServer(New(arriving{m}, slog.New(slog.DiscardHandler), func(string, errdef.Reason) {}))
	defer server.Close()
	for _, ranged := range []string{"", "bytes=1-"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		request, err := http.NewRequestWithContext(ctx, http.MethodGet,
			server.URL+"/v2/up.test/app/blobs/"+layer.Digest.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Range", ranged)
		response, err := server.Client().Do(request)
		if err != nil {
			t.Fatalf("range %q: %v", ranged, err)
		}
		if response.ContentLength < 1 {
			t.Errorf("range %q: %d bytes announced", ranged, response.ContentLength)
		}
		response.Body.Close()
		cancel()
	}
}
