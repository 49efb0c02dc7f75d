package fill

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	oras "oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/ocistern/ocistern/internal/budget"
	"github.com/ocistern/ocistern/internal/credential"
	"github.com/ocistern/ocistern/internal/egress"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

const (
	// maxRepositories bounds how many repositories of one upstream are remembered.
	maxRepositories = 1024
	// repositoryLife is how long an upstream is remembered to have no referrers API for a repository.
	repositoryLife = time.Hour
	// maxReferrersPages bounds how often one referrers list makes us ask again.
	maxReferrersPages = 256
)

// upstream is one registry as one tenant sees it, asked through oras-go.
type upstream struct {
	name      string
	tenant    reference.Tenant // "" for all that have no credentials of their own
	host      string
	plainHTTP bool
	limit     int64 // of a manifest, in bytes
	client    *verifier
	way       *egress.Transport
	budget    *budget.Budget
	clock     func() time.Time

	// mu guards repositories and distrusted.
	mu           sync.Mutex
	repositories map[string]knownRepository
	distrusted   time.Time // until when HEAD is not asked
}

// knownRepository is shared by all requests to a repository: it remembers whether there is a referrers API.
type knownRepository struct {
	*remote.Repository
	until time.Time
}

// newUpstreams returns an upstream as its tenants see it: those with credentials of their own, and all others. It fails
// with CONFIG_INVALID for a name or URL that cannot be one, and for TLS files that cannot be used.
func newUpstreams(given Upstream, config FillerConfig, pauses budget.Pauses) ([]*upstream, error) {
	base, err := baseURL(given)
	if err != nil {
		return nil, err
	}
	way, err := egress.New(egress.Config{
		URL: base, TLS: given.TLS, Allow: given.Allow, HeaderTimeout: config.Timings.Stall,
	})
	if err != nil {
		return nil, errdef.Wrap(errdef.ReasonOf(err), err, "upstream %s", given.Name)
	}
	if given.Limits.Concurrency == 0 {
		given.Limits.Concurrency = DefaultConcurrency
	}
	shared := budget.New(budget.Config{Upstream: given.Name, Limits: given.Limits, Nodes: config.Nodes, Pauses: pauses})
	client := newHTTPClient(given.Name, way, shared, config.Observer)
	seen := map[reference.Tenant]credential.Files{"": given.Credential.Files}
	for tenant, files := range given.Credential.Tenants {
		if _, err := reference.ParseTenant(string(tenant)); err != nil {
			return nil, errdef.Wrap(errdef.ConfigInvalid, err, "credentials of upstream %s", given.Name)
		}
		seen[tenant] = files
	}
	var all []*upstream
	for tenant, files := range seen {
		source, err := credential.NewSource(files, base.Host)
		if err != nil {
			return nil, errdef.Wrap(errdef.ReasonOf(err), err, "credentials of upstream %s", given.Name)
		}
		tokens := newTokens(base.Host, source, config.Timings.Metadata)
		all = append(all, &upstream{
			name: given.Name, tenant: tenant, host: base.Host, plainHTTP: base.Scheme == "http",
			limit: config.ManifestBytes, clock: config.Clock, way: way, budget: shared,
			client: &verifier{auth: newAuthClient(client, tokens), tokens: tokens}, repositories: map[string]knownRepository{},
		})
	}
	return all, nil
}

// baseURL returns scheme and host of an upstream.
func baseURL(given Upstream) (*url.URL, error) {
	if _, err := reference.ParseRepository(given.Name); err != nil || strings.Contains(given.Name, "/") {
		return nil, errdef.New(errdef.ConfigInvalid, "%q cannot be the name of an upstream", shorten(given.Name)).
			WithRemedy("the first segment of repository names, for example ghcr.io")
	}
	text := given.URL
	if text == "" {
		text = given.Name
	}
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	parsed, err := url.Parse(text)
	if err != nil || parsed.Host == "" || strings.Trim(parsed.Path, "/") != "" || parsed.RawQuery != "" ||
		parsed.User != nil || (parsed.Scheme != "https" && parsed.Scheme != "http") {
		return nil, errdef.New(errdef.ConfigInvalid, "the URL of upstream %s is not scheme and host", given.Name).
			WithRemedy("for example https://ghcr.io, or http://127.0.0.1:5000")
	}
	return parsed, nil
}

// close stops fetching tokens, and closes the connections that no request uses.
func (u *upstream) close() {
	u.client.tokens.fetches.close()
	u.way.CloseIdleConnections()
}

// manifest asks for a manifest by tag or digest: one request. The bytes match the descriptor.
func (u *upstream) manifest(ctx context.Context, path, ref string) (ocispec.Descriptor, []byte, error) {
	x := &exchange{budget: u.limit}
	if dgst, err := reference.ParseDigest(ref); err == nil {
		x.want = dgst
	}
	object := "manifest " + path + " " + ref
	desc, body, err := u.repository(path).FetchReference(withExchange(ctx, x), ref)
	if err != nil {
		return ocispec.Descriptor{}, nil, u.client.tokens.clean(x, u.failure(err, object))
	}
	defer body.Close()
	content, err := io.ReadAll(body) // in memory and within the limit already
	if err != nil {
		return ocispec.Descriptor{}, nil, u.failure(err, object)
	}
	return desc, content, nil
}

// head asks by HEAD where a tag points. It fails when the answer does not say it.
func (u *upstream) head(ctx context.Context, path string, tag reference.Tag) (digest.Digest, error) {
	x := &exchange{budget: u.limit}
	desc, err := u.repository(path).Manifests().Resolve(withExchange(ctx, x), string(tag))
	if err != nil {
		return "", u.client.tokens.clean(x, u.failure(err, "manifest "+path+" "+string(tag)))
	}
	return reference.ParseDigest(desc.Digest.String())
}

// headLife is how long HEAD is not asked after it has contradicted GET.
const headLife = time.Hour

func (u *upstream) distrustHEAD(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.distrusted = now.Add(headLife)
}

func (u *upstream) trustsHEAD(now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !now.Before(u.distrusted)
}

// referrers asks for the referrers of a subject, all pages or an error. A list that is empty was proven to be.
func (u *upstream) referrers(ctx context.Context, path string, subject digest.Digest) ([]ocispec.Descriptor, error) {
	x := &exchange{budget: u.limit, subject: subject}
	object := "referrers of " + path + " " + subject.String()
	var all []ocispec.Descriptor
	err := u.repository(path).Referrers(withExchange(ctx, x), ocispec.Descriptor{Digest: subject}, "",
		func(page []ocispec.Descriptor) error {
			all = append(all, page...)
			return nil
		})
	if errors.Is(err, oras.ErrInvalidReference) {
		return u.referrersByShortTag(ctx, path, subject)
	}
	if err != nil {
		return nil, u.client.tokens.clean(x, u.failure(err, object))
	}
	list, err := cleanReferrers(all)
	if err != nil {
		return nil, u.client.tokens.clean(x, u.failure(err, object))
	}
	return list, nil
}

// referrersByShortTag asks for the referrers tag of a sha512 subject. Its digest does not fit into a tag, so the tag
// has only its beginning (distribution spec, "Referrers Tag Schema"); oras-go v2.7.0 does not know this and refuses
// the tag.
func (u *upstream) referrersByShortTag(
	ctx context.Context, path string, subject digest.Digest,
) ([]ocispec.Descriptor, error) {
	const kept = 64
	tag := subject.Algorithm().String() + "-" + subject.Encoded()[:kept]
	desc, body, err := u.manifest(ctx, path, tag)
	switch {
	case errdef.ReasonOf(err) == errdef.NotFound:
		return []ocispec.Descriptor{}, nil
	case err != nil:
		return nil, err
	case desc.MediaType != ocispec.MediaTypeImageIndex:
		return nil, errdef.New(errdef.UpstreamInvalid, "upstream %s, %s: referrers tag names a %s",
			u.name, path, desc.MediaType)
	}
	return parseReferrers(body)
}

// blob opens a blob at an offset, or at its beginning where the upstream cannot do better. Nothing is verified yet.
func (u *upstream) blob(ctx context.Context, path string, dgst digest.Digest, offset int64) (*piece, error) {
	x := &exchange{from: offset}
	_, body, err := u.repository(path).Blobs().FetchReference(withExchange(ctx, x), dgst.String())
	if err != nil {
		return nil, u.client.tokens.clean(x, u.failure(err, "blob "+path+" "+dgst.String()))
	}
	return &piece{ReadCloser: body, begins: x.begins, size: x.size}, nil
}

// repository returns the shared client of a repository.
func (u *upstream) repository(path string) *remote.Repository {
	now := u.clock()
	u.mu.Lock()
	defer u.mu.Unlock()
	if known, ok := u.repositories[path]; ok && now.Before(known.until) {
		return known.Repository
	}
	if len(u.repositories) >= maxRepositories {
		for other := range u.repositories { // any one: to forget costs a request, not an answer
			delete(u.repositories, other)
			break
		}
	}
	fresh := &remote.Repository{
		Client:               u.client,
		Reference:            registry.Reference{Registry: u.host, Repository: path},
		PlainHTTP:            u.plainHTTP,
		MaxMetadataBytes:     u.limit,
		ReferrerListMaxPages: maxReferrersPages,
	}
	u.repositories[path] = knownRepository{fresh, now.Add(repositoryLife)}
	return fresh
}
