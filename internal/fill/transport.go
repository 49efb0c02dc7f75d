package fill

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/ocistern/ocistern/internal/budget"
	"github.com/ocistern/ocistern/internal/egress"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Operations of an upstream, by which requests are counted.
const (
	operationManifest  = "manifest"
	operationReferrers = "referrers"
	operationBlob      = "blob"
	operationToken     = "token"
	operationRedirect  = "redirect"
)

// newHTTPClient returns the HTTP client of one upstream. Its connections are shared by all tenants: a connection has no
// credentials other than the node's certificate.
func newHTTPClient(upstream string, way *egress.Transport, bears *budget.Budget, observer Observer) *http.Client {
	counted := &countingTransport{base: way, upstream: upstream, observer: observer}
	within := &budget.Transport{Base: counted, Budget: bears, Bulk: isContent}
	return &http.Client{
		Transport:     &retry.Transport{Base: within, Policy: func() retry.Policy { return retryPolicy{} }},
		CheckRedirect: way.CheckRedirect,
	}
}

// newAuthClient returns the client that answers the upstream's challenges as one tenant; its tokens are shared by all
// repositories.
func newAuthClient(client *http.Client, tokens *tokens) *auth.Client {
	authenticating := &auth.Client{
		Client: client, Cache: tokens, Credential: tokens.credential, ClientID: "ocistern",
		// Package egress checks where connections go, when they are made. A look at the name before is no use.
		BlockedRealmPrefixes: []netip.Prefix{},
	}
	authenticating.SetUserAgent("ocistern")
	return authenticating
}

// countingTransport tells the observer about every request that reaches the network, and narrows what an upstream wants
// us to ask a token for.
type countingTransport struct {
	base     http.RoundTripper
	upstream string
	observer Observer
}

// RoundTrip implements http.RoundTripper.
func (t *countingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req)
	failure := err
	if err == nil && resp.StatusCode >= http.StatusBadRequest && resp.StatusCode != http.StatusNotFound {
		failure = errdef.New(reasonOfStatus(resp.StatusCode), "status %d", resp.StatusCode)
	}
	t.observer.UpstreamRequest(t.upstream, operationOf(req), failure)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		narrowChallenge(resp.Header)
	}
	return resp, err
}

// isContent tells whether a request, or the one that was redirected to it, is for a blob: its body may take long.
func isContent(req *http.Request) bool {
	for req.Response != nil && req.Response.Request != nil {
		req = req.Response.Request
	}
	endpoint, _ := endpointOf(req.URL.Path)
	return endpoint == operationBlob
}

// operationOf tells what a request is for: the endpoint of the distribution API, or the token service or the redirect
// that came in between.
func operationOf(req *http.Request) string {
	if req.Response != nil {
		return operationRedirect
	}
	if endpoint, _ := endpointOf(req.URL.Path); endpoint != "" {
		return endpoint
	}
	return operationToken
}

// endpointOf splits the path of a distribution API request into its endpoint and the tag or digest it ends with.
func endpointOf(path string) (endpoint, reference string) {
	parts := strings.Split(path, "/")
	if len(parts) < 3 {
		return "", ""
	}
	reference = parts[len(parts)-1]
	switch parts[len(parts)-2] {
	case "manifests":
		return operationManifest, reference
	case "referrers":
		return operationReferrers, reference
	case "blobs":
		return operationBlob, reference
	}
	return "", ""
}

// retryPolicy retries what a moment may cure, twice and soon. After an upstream has demanded to be left alone, the budget
// below waits for as long as that, or tells at once that the request's deadline comes before.
type retryPolicy struct{}

const (
	maxRetries   = 2
	firstBackoff = 100 * time.Millisecond
)

// Retry implements retry.Policy; a negative duration means no more.
func (retryPolicy) Retry(attempt int, resp *http.Response, err error) (time.Duration, error) {
	if attempt >= maxRetries || !retryable(resp, err) {
		return -1, nil
	}
	if err == nil && throttles(resp) {
		return 0, nil // the budget waits
	}
	backoff := firstBackoff << (2 * attempt)
	return backoff/2 + rand.N(backoff), nil
}

func retryable(resp *http.Response, err error) bool {
	if err != nil {
		var certificate *tls.CertificateVerificationError
		var refused *errdef.Error
		var network net.Error
		slow := errors.As(err, &network) && network.Timeout()
		return !slow && !errors.As(err, &certificate) && !errors.As(err, &refused) &&
			!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
	}
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return throttles(resp)
}

// throttles tells whether the upstream says when to ask again.
func throttles(resp *http.Response) bool {
	demands := resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable
	return demands && resp.Header.Get("Retry-After") != ""
}
