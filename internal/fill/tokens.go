package fill

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"
	"sync"
	"time"

	oras "oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/ocistern/ocistern/internal/credential"
	"github.com/ocistern/ocistern/internal/errdef"
)

const (
	// maxTokenBytes bounds a token; it has to fit into a header.
	maxTokenBytes = 16 << 10
	// minSecretBytes is how long a secret must be to be taken out of errors: a shorter one is a part of other words, and
	// the gaps would tell it.
	minSecretBytes = 8
)

// tokens is the token cache of one upstream as one tenant sees it (auth.Cache), shared by all requests. oras-go's own
// cache keeps a refused token until there is another one, files a token under the scopes of the challenge, where the
// next request does not look for it when the upstream wants more than it was asked for, tries what it finds there
// before it asks for a new one, and grows with the number of repositories.
type tokens struct {
	host    string
	source  *credential.Source
	timeout time.Duration            // of one request to a token service
	fetches *flights[string, string] // by scheme and scopes

	// mu guards the fields below.
	mu       sync.Mutex
	revision uint64 // of the credential that the tokens were got with
	scheme   auth.Scheme
	byScopes map[string]string
	secrets  []string // of the credential that was read last
}

func newTokens(host string, source *credential.Source, timeout time.Duration) *tokens {
	return &tokens{
		host: host, source: source, timeout: timeout, fetches: newFlights[string, string](), byScopes: map[string]string{},
	}
}

// credential implements auth.CredentialFunc. No host but the upstream has one.
func (t *tokens) credential(ctx context.Context, host string) (auth.Credential, error) {
	if host != t.host {
		return auth.EmptyCredential, nil
	}
	found, err := t.source.Credential(ctx)
	if err != nil {
		return found, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.secrets = nil
	for _, secret := range []string{found.Password, found.RefreshToken, found.AccessToken} {
		if secret != "" {
			t.secrets = append(t.secrets, secret)
		}
	}
	if found.Password != "" {
		t.secrets = append(t.secrets, base64.StdEncoding.EncodeToString([]byte(found.Username+":"+found.Password)))
	}
	return found, nil
}

// renew begins a request: tokens that were got with a credential that was replaced since are forgotten.
func (t *tokens) renew(x *exchange) {
	x.token = ""
	revision := t.source.Revision()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.revision != revision {
		t.revision, t.scheme = revision, auth.SchemeUnknown
		clear(t.byScopes)
	}
}

// GetScheme implements auth.Cache.
func (t *tokens) GetScheme(_ context.Context, host string) (auth.Scheme, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if host != t.host || t.scheme == auth.SchemeUnknown {
		return auth.SchemeUnknown, oras.ErrNotFound
	}
	return t.scheme, nil
}

// GetToken implements auth.Cache. oras-go asks for the scopes of the request and, after a challenge, for both; the
// latter are never found, so that a new token is fetched, which Set files under those of the request.
func (t *tokens) GetToken(ctx context.Context, host string, scheme auth.Scheme, scopes string) (string, error) {
	token, ok := t.current(scheme, scopes)
	if host != t.host || !ok {
		return "", oras.ErrNotFound
	}
	exchangeOf(ctx).show(token)
	return token, nil
}

// Set implements auth.Cache: it gets a token after the upstream has refused the one of the request, or had none. All
// who wait for the same token share one fetch, and one that was fetched meanwhile is taken.
func (t *tokens) Set(
	ctx context.Context, host string, scheme auth.Scheme, _ string, fetch func(context.Context) (string, error),
) (string, error) {
	if host != t.host {
		return "", errdef.New(errdef.UpstreamInvalid, "another host than the upstream asks for credentials")
	}
	x, scopes := exchangeOf(ctx), t.scopes(ctx, scheme)
	refused := x.token
	token, _, err := t.fetches.join(ctx, scheme.String()+" "+scopes,
		func(life context.Context, _ pilot[string]) (string, error) {
			if token, ok := t.current(scheme, scopes); ok && token != refused {
				return token, nil
			}
			revision := t.forget(scopes, refused)
			bounded, cancel := context.WithTimeout(life, t.timeout)
			defer cancel()
			token, err := fetch(bounded)
			if err != nil || len(token) > maxTokenBytes {
				return "", fetchFailure(scheme, err)
			}
			t.keep(revision, scheme, scopes, token)
			return token, nil
		})
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return "", err
	}
	x.show(token)
	return token, nil
}

// scopes returns what the token of a request is filed under.
func (t *tokens) scopes(ctx context.Context, scheme auth.Scheme) string {
	if scheme == auth.SchemeBasic {
		return ""
	}
	return strings.Join(auth.GetAllScopesForHost(ctx, t.host), " ")
}

func (t *tokens) current(scheme auth.Scheme, scopes string) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	token, ok := t.byScopes[scopes]
	return token, ok && t.scheme == scheme
}

// forget evicts a token that was refused, and returns the revision of the credential.
func (t *tokens) forget(scopes, refused string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byScopes[scopes] == refused {
		delete(t.byScopes, scopes)
	}
	return t.revision
}

// drop evicts the token of a request that was refused, wherever it is filed.
func (t *tokens) drop(x *exchange) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for scopes, token := range t.byScopes {
		if token == x.token {
			delete(t.byScopes, scopes)
		}
	}
}

// keep files a token, unless the credential was replaced meanwhile.
func (t *tokens) keep(revision uint64, scheme auth.Scheme, scopes, token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if revision != t.revision {
		return
	}
	if scheme != t.scheme {
		t.scheme = scheme
		clear(t.byScopes)
	}
	if len(t.byScopes) >= maxRepositories {
		for other := range t.byScopes { // any one: to forget costs a request, not an answer
			delete(t.byScopes, other)
			break
		}
	}
	t.byScopes[scopes] = token
}

// show notes that a request shows a token.
func (x *exchange) show(token string) {
	x.token = token
	if !slices.Contains(x.shown, token) {
		x.shown = append(x.shown, token)
	}
}

// clean takes out of an error what an upstream repeats of our credentials, as one does that wants to help or to harm.
// Errors are logged and given to callers.
func (t *tokens) clean(x *exchange, err error) error {
	t.mu.Lock()
	secrets := slices.Concat(t.secrets, x.shown)
	t.mu.Unlock()
	text, cleaned := err.Error(), false
	for _, secret := range secrets {
		if len(secret) >= minSecretBytes && strings.Contains(text, secret) {
			text, cleaned = strings.ReplaceAll(text, secret, "[credential]"), true
		}
	}
	if !cleaned {
		return err
	}
	return errdef.New(errdef.ReasonOf(err), "%s", text)
}

// fetchFailure types an error of getting a token; err is nil for a token that is too large.
func fetchFailure(scheme auth.Scheme, err error) error {
	otherwise := errdef.New(errdef.UpstreamInvalid, "its token service gave no usable token")
	if scheme == auth.SchemeBasic {
		otherwise = errdef.New(errdef.UpstreamUnauthorized, "it asks for a username and a password").
			WithRemedy("configure them for the upstream, or check the name of the repository")
	}
	return authFailure(err, otherwise)
}
