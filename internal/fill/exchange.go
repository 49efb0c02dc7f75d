package fill

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

const headerDigest = "Docker-Content-Digest"

// exchange is what the verifier needs to know about the operation that a request belongs to. It travels in the
// request's context, because oras-go builds the requests.
type exchange struct {
	budget  int64         // bytes that all bodies of the operation may still have
	want    digest.Digest // of the manifest, when asked for by digest
	subject digest.Digest // whose referrers are asked for, else empty
	pages   int           // of the referrers API that were read
	from    int64         // the first byte that is wanted of a blob
	begins  int64         // the first byte of the blob that the answer has
	size    int64         // of the whole blob as the answer states it, else negative

	token string   // that the request under way shows, or ""
	shown []string // tokens that any request of the operation showed
}

type exchangeKey struct{}

func withExchange(ctx context.Context, x *exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, x)
}

// verifier is the client that oras-go talks to. It hands on only answers that are whole, within the limit and what
// they claim to be. oras-go v2.7.0 trusts a Docker-Content-Digest without looking at the body, asks a second time
// when an answer has no length, and knows only sha256; it takes any manifest under a referrers tag for "no
// referrers", and a 404 of the second page for a registry without referrers API, which would leave the first page as
// the whole list.
type verifier struct {
	auth   *auth.Client
	tokens *tokens
}

// Do implements remote.Client.
func (v *verifier) Do(req *http.Request) (*http.Response, error) {
	askRange(req)
	x := exchangeOf(req.Context())
	v.tokens.renew(x)
	resp, err := v.auth.Do(req)
	if err != nil {
		return nil, authFailure(err, errdef.New(errdef.UpstreamInvalid, "it names no token service that may be used"))
	}
	if resp.StatusCode == http.StatusUnauthorized {
		v.tokens.drop(x) // the one that was fetched a moment ago
	}
	checked, err := check(req, resp)
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return checked, nil
}

// authFailure types an error of the authenticating client: of the network, or of a token service, whose 404 is none of
// the object that was asked for. What is left are oras-go's own words, which repeat what the upstream said; otherwise
// stands for them.
func authFailure(err error, otherwise *errdef.Error) error {
	var answered *errcode.ErrorResponse
	var typed *errdef.Error
	var network *url.Error
	switch {
	case errors.As(err, &answered):
		return errdef.New(reasonOfStatus(answered.StatusCode), "its token service answered %d", answered.StatusCode)
	case errors.As(err, &typed), errors.As(err, &network),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return networkFailure(err)
	}
	return otherwise
}

// exchangeOf returns the exchange of a context, or one that nobody else has.
func exchangeOf(ctx context.Context) *exchange {
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return x
	}
	return &exchange{}
}

func check(req *http.Request, resp *http.Response) (*http.Response, error) {
	endpoint, ref := endpointOf(req.URL.Path)
	finalEndpoint, finalRef := endpointOf(resp.Request.URL.Path)
	if resp.StatusCode == http.StatusNotFound && (endpoint != finalEndpoint || ref != finalRef) {
		return nil, errdef.New(errdef.UpstreamInvalid, "it redirected to a place that does not exist")
	}
	x, known := req.Context().Value(exchangeKey{}).(*exchange)
	if known && endpoint == operationReferrers && x.pages > 0 && resp.StatusCode == http.StatusNotFound {
		return nil, errdef.New(errdef.UpstreamInvalid, "it has no page %d of its referrers list", x.pages+1)
	}
	if known && endpoint == operationBlob && req.Method == http.MethodGet {
		return resp, x.checkBlob(resp)
	}
	if resp.StatusCode != http.StatusOK || req.Method != http.MethodGet || !known {
		return resp, nil
	}
	switch endpoint {
	case operationManifest:
		return resp, x.checkManifest(resp)
	case operationReferrers:
		return resp, x.checkReferrers(resp)
	}
	return resp, nil
}

// checkManifest verifies a manifest and replaces the body by its bytes.
func (x *exchange) checkManifest(resp *http.Response) error {
	body, err := x.read(resp)
	if err != nil {
		return err
	}
	dgst, err := x.digestOf(resp, body)
	if err != nil {
		return err
	}
	mediaType, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return errdef.Wrap(errdef.MediaTypeInvalid, err, "its answer has no usable Content-Type")
	}
	if _, ok := shapeOf(mediaType); !ok {
		return errdef.New(errdef.MediaTypeInvalid, "its answer has Content-Type %q, which is no manifest", shorten(mediaType))
	}
	if x.subject != "" && dgst != x.subject { // some registries resolve a referrers tag to the subject itself
		if mediaType != ocispec.MediaTypeImageIndex {
			return errdef.New(errdef.UpstreamInvalid, "its referrers tag names a %s", mediaType)
		}
		if _, err := parseReferrers(body); err != nil {
			return err
		}
	}
	resp.Header.Set(headerDigest, dgst.String())
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return nil
}

// checkReferrers verifies a page of the referrers API and replaces the body by its bytes. An answer of another type
// is left to oras-go, which takes it for a registry without this API and asks for the referrers tag.
func (x *exchange) checkReferrers(resp *http.Response) error {
	mediaType, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || mediaType != ocispec.MediaTypeImageIndex {
		if x.pages > 0 {
			return errdef.New(errdef.UpstreamInvalid, "page %d of its referrers list is no image index", x.pages+1)
		}
		return nil
	}
	x.pages++
	body, err := x.read(resp)
	if err != nil {
		return err
	}
	if _, err := parseReferrers(body); err != nil {
		return err
	}
	resp.Header.Set("Content-Type", mediaType) // oras-go does not expect parameters
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return nil
}

// read reads a whole body, inside what the operation may still read, and closes it.
func (x *exchange) read(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	tooLarge := errdef.New(errdef.ManifestTooLarge, "its answer is over the limit").
		WithRemedy("raise limits.manifest-bytes if the artifact is genuine")
	if resp.ContentLength > x.budget {
		return nil, tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, x.budget+1))
	if err != nil {
		return nil, networkFailure(err)
	}
	if x.budget -= int64(len(body)); x.budget < 0 {
		return nil, tooLarge
	}
	return body, nil
}

// digestOf computes the digest of a manifest: by the algorithm that was asked for, else by that of the upstream's
// header, else sha256. Both the header and what was asked for must agree with the bytes.
func (x *exchange) digestOf(resp *http.Response, body []byte) (digest.Digest, error) {
	computed := digest.FromBytes(body)
	if header := resp.Header.Get(headerDigest); header != "" {
		claimed, err := reference.ParseDigest(header)
		if err != nil {
			return "", errdef.Wrap(errdef.UpstreamInvalid, err, "header %s", headerDigest)
		}
		if computed = claimed.Algorithm().FromBytes(body); computed != claimed {
			return "", errdef.New(errdef.DigestMismatch, "its answer has digest %s and claims %s", computed, claimed)
		}
	}
	if x.want != "" {
		if computed = x.want.Algorithm().FromBytes(body); computed != x.want {
			return "", errdef.New(errdef.DigestMismatch, "its answer has digest %s", computed)
		}
	}
	return computed, nil
}
