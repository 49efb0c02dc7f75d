package distribution

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
	"github.com/ocistern/ocistern/internal/registry/registrytest"
)

// HTTP gives the answers that gRPC and the use cases themselves give.
func TestRegistryOverHTTP(t *testing.T) {
	registrytest.Run(t, func(t *testing.T, r registry.Registry) registry.Registry {
		server := httptest.NewServer(New(r, slog.New(slog.DiscardHandler), func(string, errdef.Reason) {}))
		t.Cleanup(server.Close)
		return &overHTTP{url: server.URL, client: server.Client()}
	})
}

// overHTTP is a registry.Registry on the other side of HTTP.
type overHTTP struct {
	url    string
	client *http.Client
}

// call makes one request. It rebuilds the error from the reason in the body, which for HEAD only a GET can bring.
func (r *overHTTP) call(
	ctx context.Context, method string, target registry.Target, path string, header http.Header,
) (*http.Response, error) {
	to := r.url + "/v2/" + string(target.Reference.Repository) + "/" + path
	request, err := http.NewRequestWithContext(ctx, method, to, nil)
	if err != nil {
		return nil, err
	}
	request.Header = header
	response, err := r.client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode < http.StatusBadRequest {
		return response, nil
	}
	defer response.Body.Close()
	if method == http.MethodHead {
		got, err := r.call(ctx, http.MethodGet, target, path, header)
		if err == nil {
			got.Body.Close()
			err = fmt.Errorf("HEAD %s gave %d, GET %d", path, response.StatusCode, got.StatusCode)
		}
		return nil, err
	}
	var body struct {
		Errors []failure `json:"errors"`
	}
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		return nil, err
	}
	return nil, errdef.New(errdef.Reason(body.Errors[0].Detail["reason"]), "%s", body.Errors[0].Message)
}

func (r *overHTTP) read(ctx context.Context, target registry.Target, path string) ([]byte, http.Header, error) {
	response, err := r.call(ctx, http.MethodGet, target, path, nil)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return body, response.Header, err
}

func pathOf(endpoint string, target registry.Target) string {
	return endpoint + "/" + string(target.Reference.Tag) + target.Reference.Digest.String()
}

func descriptorOf(header http.Header) ocispec.Descriptor {
	size, _ := strconv.ParseInt(header.Get("Content-Length"), 10, 64) // what is no number will not match
	return ocispec.Descriptor{
		MediaType: header.Get("Content-Type"), Digest: digest.Digest(header.Get("Docker-Content-Digest")), Size: size,
	}
}

func provenanceOf(header http.Header) registry.Provenance {
	index, _ := strconv.ParseUint(header.Get("Ocistern-Catalog-Index"), 10, 64) // what is no number will not match
	source := map[string]catalog.Source{"upstream": catalog.SourceUpstream, "pushed": catalog.SourcePushed}
	p := registry.Provenance{
		Index: catalog.LogIndex(index), Source: source[header.Get("Ocistern-Source")], Node: header.Get("Ocistern-Node"),
		StaleReason: header.Get("Ocistern-Stale"), Fresh: header.Get("Ocistern-Stale") == "",
		Why: registry.Why(header.Get("Ocistern-Why")),
	}
	age, _ := strconv.Atoi(header.Get("Age")) // zero when there is none
	p.Age = time.Duration(age) * time.Second
	p.Observed, _ = time.Parse(time.RFC3339Nano, header.Get("Ocistern-Observed")) // zero when there is none
	return p
}

func (r *overHTTP) Resolve(
	ctx context.Context, _ registry.Principal, target registry.Target,
) (registry.Resolved, error) {
	response, err := r.call(ctx, http.MethodHead, target, pathOf("manifests", target), nil)
	if err != nil {
		return registry.Resolved{}, err
	}
	defer response.Body.Close()
	return registry.Resolved{Descriptor: descriptorOf(response.Header), Provenance: provenanceOf(response.Header)}, nil
}

func (r *overHTTP) FetchManifest(
	ctx context.Context, _ registry.Principal, target registry.Target,
) (registry.Manifest, error) {
	body, header, err := r.read(ctx, target, pathOf("manifests", target))
	return registry.Manifest{Descriptor: descriptorOf(header), Content: body, Provenance: provenanceOf(header)}, err
}

func (r *overHTTP) FetchBlob(
	ctx context.Context, _ registry.Principal, target registry.Target, offset int64,
) (*registry.Blob, error) {
	header := http.Header{}
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	response, err := r.call(ctx, http.MethodGet, target, pathOf("blobs", target), header)
	if err != nil {
		return nil, err
	}
	desc := descriptorOf(response.Header)
	desc.Size += offset
	return &registry.Blob{Descriptor: desc, Provenance: provenanceOf(response.Header), Content: response.Body}, nil
}

func (r *overHTTP) Referrers(
	ctx context.Context, _ registry.Principal, target registry.Target, artifactType string,
) (registry.Referrers, error) {
	path := pathOf("referrers", target)
	if artifactType != "" {
		path += "?" + url.Values{"artifactType": {artifactType}}.Encode()
	}
	body, header, err := r.read(ctx, target, path)
	if err != nil {
		return registry.Referrers{}, err
	}
	if filtered := header.Get("OCI-Filters-Applied") == "artifactType"; filtered != (artifactType != "") {
		return registry.Referrers{}, fmt.Errorf("filter %q, applied %t", artifactType, filtered)
	}
	var list ocispec.Index
	err = json.Unmarshal(body, &list)
	return registry.Referrers{Descriptors: list.Manifests, Provenance: provenanceOf(header)}, err
}

func (r *overHTTP) Tags(
	ctx context.Context, _ registry.Principal, target registry.Target, last reference.Tag, limit int,
) (registry.TagPage, error) {
	query := url.Values{"n": {strconv.Itoa(limit)}}
	if last != "" {
		query.Set("last", string(last))
	}
	body, header, err := r.read(ctx, target, "tags/list?"+query.Encode())
	if err != nil {
		return registry.TagPage{}, err
	}
	var list struct {
		Tags []reference.Tag `json:"tags"`
	}
	err = json.Unmarshal(body, &list)
	return registry.TagPage{Tags: list.Tags, More: header.Get("Link") != "", Provenance: provenanceOf(header)}, err
}
