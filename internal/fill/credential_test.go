package fill

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/ocistern/ocistern/internal/credential"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// gated returns an upstream behind a gate, and its image org/app:v1.
func gated(t *testing.T, configure func(*Upstream)) (*upstream, *gate, ocispec.Descriptor) {
	t.Helper()
	r := newTestRegistry(t)
	r.configure = configure
	image, _ := r.pushImage("org/app", "v1", []byte("layer"))
	u, _ := testUpstream(t, r.upstream())
	return u, newGate(r), image
}

func with(files credential.Files) func(*Upstream) {
	return func(given *Upstream) { given.Credential.Files = files }
}

// Every way to configure a credential opens the gate it is for, with one retry; the token is shown again.
func TestCredentialsOpenTheGate(t *testing.T) {
	config := func(entry string) credential.Files {
		return credential.Files{DockerConfig: secretFile(t, entry)}
	}
	for _, c := range []struct {
		name   string
		files  credential.Files
		basic  bool
		issued int
		want   errdef.Reason
	}{
		{"password", account(t, "me", planted), true, 0, ""},
		{"password for a token", account(t, "me", planted), false, 1, ""},
		{"identity token", credential.Files{IdentityTokenFile: secretFile(t, planted)}, false, 1, ""},
		{"token", credential.Files{TokenFile: secretFile(t, "static")}, false, 0, ""},
		{"none", credential.Files{}, true, 0, errdef.UpstreamUnauthorized},
		{"none for a token", credential.Files{}, false, 0, errdef.UpstreamUnauthorized},
		{"not in the docker config", config(`{"auths":{}}`), false, 0, errdef.UpstreamUnauthorized},
		{"wrong password", account(t, "me", "wrong"), true, 0, errdef.UpstreamUnauthorized},
		{"wrong password for a token", account(t, "me", "wrong"), false, 0, errdef.UpstreamUnauthorized},
		{"token where a password is wanted", credential.Files{TokenFile: secretFile(t, planted)}, true, 0,
			errdef.UpstreamUnauthorized},
		{"broken file", config(planted), false, 0, errdef.UpstreamUnauthorized},
		{"broken file, basic", config(planted), true, 0, errdef.UpstreamUnauthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, g, image := gated(t, with(c.files))
			g.basic, g.valid["static"] = c.basic, true
			_, _, err := u.manifest(t.Context(), "org/app", "v1")
			expect(t, "manifest", err, c.want)
			if c.want != "" {
				return
			}
			if shown, issued := g.seen(); len(shown) != 2 || shown[0] != "" || issued != c.issued {
				t.Errorf("the first request was made as %q, %d tokens", shown, issued)
			}
			_, list := u.referrers(t.Context(), "org/app", image.Digest)
			expect(t, "referrers", list, "")
			if shown, issued := g.seen(); len(shown) != 1 || shown[0] == "" || issued != 0 {
				t.Errorf("the second request was made as %q, %d tokens", shown, issued)
			}
		})
	}
}

func TestDockerConfigOpensTheGate(t *testing.T) {
	path := secretFile(t, "")
	u, g, _ := gated(t, with(credential.Files{DockerConfig: path}))
	g.basic = true
	entry := base64.StdEncoding.EncodeToString([]byte("me:" + planted))
	rewrite(t, path, `{"auths":{"`+u.host+`":{"auth":"`+entry+`"}}}`)
	_, _, err := u.manifest(t.Context(), "org/app", "v1")
	expect(t, "manifest", err, "")
}

// A token that is refused is evicted, another is fetched, and the request is made once more, never twice.
func TestARefusedTokenIsReplacedOnce(t *testing.T) {
	u, g, _ := gated(t, with(account(t, "me", planted)))
	for round := range 3 {
		g.expire()
		_, _, err := u.manifest(t.Context(), "org/app", "v1")
		expect(t, "manifest", err, "")
		shown, issued := g.seen()
		if issued != 1 || len(shown) != 2 || shown[0] == shown[1] || (round > 0) != (shown[0] != "") {
			t.Errorf("round %d: made as %q, %d tokens", round, shown, issued)
		}
	}
	g.close()
	for round := range 2 {
		_, _, err := u.manifest(t.Context(), "org/app", "v1")
		expect(t, "manifest without a token", err, errdef.UpstreamUnauthorized)
		if shown, _ := g.seen(); len(shown) != 1 || (round == 1 && shown[0] != "") {
			t.Errorf("round %d: a refused token is kept: made as %q", round, shown)
		}
	}
}

// An upstream that refuses whatever its own service issues is asked twice an operation, and sees no token twice.
func TestAnUpstreamThatRefusesItsOwnTokens(t *testing.T) {
	r := newTestRegistry(t)
	r.configure = with(account(t, "me", planted))
	g := newGate(r)
	g.challenge = "repository:org/app:pull repository:other:pull"
	r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
		g.spoil(w, req)
		g.expire()
		return true
	})
	u, _ := testUpstream(t, r.upstream())
	seen := map[string]bool{}
	for range 3 {
		_, _, err := u.manifest(t.Context(), "org/app", "v1")
		expect(t, "manifest", err, errdef.UpstreamUnauthorized)
		shown, _ := g.seen()
		if len(shown) != 2 || shown[0] != "" || seen[shown[1]] {
			t.Errorf("made as %q, after %v", shown, seen)
		}
		seen[shown[len(shown)-1]] = true
	}
}

// However many requests want a token at the same time, one is fetched; also when one was refused.
func TestCallersShareAToken(t *testing.T) {
	u, g, _ := gated(t, with(account(t, "me", planted)))
	for round := range 3 {
		g.expire()
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				_, _, err := u.manifest(t.Context(), "org/app", "v1")
				expect(t, "manifest", err, "")
			})
		}
		all.Wait()
		if shown, issued := g.seen(); issued != 1 || len(shown) > 100 {
			t.Errorf("round %d: %d tokens for %d requests", round, issued, len(shown))
		}
	}
}

// An upstream gets us to ask for no more than reading, and the token is found again however it words its challenge.
func TestScopesAreNarrow(t *testing.T) {
	for challenge, want := range map[string]string{
		"repository:org/app:pull":                                    "repository:org/app:pull",
		"repository:org/app:pull,push,delete registry:catalog:*":     "repository:org/app:pull",
		"repository:org/app:*":                                       "repository:org/app:pull",
		"repository:org/app:metadata_read,pull":                      "repository:org/app:metadata_read,pull",
		"repository:org/other:pull,push":                             "repository:org/app:pull repository:org/other:pull",
		"aws":                                                        "aws repository:org/app:pull",
		`x",realm="http://127.0.0.1:1/`:                              "",
		`repository:org/app:pull,p\x75sh`:                            "repository:org/app:pull",
		`repository:org/app:pull", scope="repository:org/app:delete`: "repository:org/app:pull",
	} {
		t.Run(challenge, func(t *testing.T) {
			u, g, _ := gated(t, with(account(t, "me", planted)))
			g.challenge = challenge
			_, _, err := u.manifest(t.Context(), "org/app", "v1")
			if want == "" { // the realm is another, which is refused
				expect(t, "manifest", err, errdef.UpstreamInvalid)
				return
			}
			expect(t, "manifest", err, "")
			if !slices.Equal(g.scopes, []string{want}) {
				t.Errorf("asked for %q", g.scopes)
			}
			g.seen()
			_, _, err = u.manifest(t.Context(), "org/app", "v1")
			expect(t, "manifest", err, "")
			if shown, issued := g.seen(); len(shown) != 1 || issued != 0 {
				t.Errorf("the second request was made as %q, %d tokens", shown, issued)
			}
		})
	}
}

// Whoever replaces a file is believed at the next request; what was got with the old one is shown no more.
func TestCredentialsAreReloaded(t *testing.T) {
	for _, basic := range []bool{true, false} {
		files := account(t, "me", planted)
		u, g, _ := gated(t, with(files))
		g.basic = basic
		ask := func() ([]string, error) {
			_, _, err := u.manifest(t.Context(), "org/app", "v1")
			shown, _ := g.seen()
			return shown, err
		}
		if _, err := ask(); err != nil {
			t.Fatal(err)
		}
		g.set("me", "another "+planted)
		rewrite(t, files.PasswordFile, "another "+planted)
		if shown, err := ask(); err != nil || shown[0] != "" {
			t.Errorf("replaced: %v, made as %q", err, shown)
		}
		rewrite(t, files.PasswordFile, "")
		shown, err := ask()
		expect(t, "broken", err, errdef.UpstreamUnauthorized)
		if len(shown) != 1 || shown[0] != "" {
			t.Errorf("broken: made as %q", shown)
		}
		rewrite(t, files.PasswordFile, "another "+planted)
		if _, err := ask(); err != nil {
			t.Errorf("repaired: %v", err)
		}
	}
}

// A token that was on its way while its credential was replaced is used once and not kept.
func TestAnOldTokenIsNotKept(t *testing.T) {
	files := account(t, "me", planted)
	u, _, _ := gated(t, with(files))
	tokens, scope := u.client.tokens, "repository:org/app:pull"
	ctx := auth.AppendScopesForHost(t.Context(), u.host, scope)
	for _, replaced := range []bool{false, true} {
		tokens.renew(&exchange{})
		token, err := tokens.Set(ctx, u.host, auth.SchemeBearer, scope, func(context.Context) (string, error) {
			if replaced {
				rewrite(t, files.PasswordFile, "another "+planted)
				tokens.renew(&exchange{})
			}
			return fmt.Sprint("token ", replaced), nil
		})
		if err != nil || token != fmt.Sprint("token ", replaced) {
			t.Errorf("replaced %v: got %q, %v", replaced, token, err)
		}
		if kept, err := tokens.GetToken(ctx, u.host, auth.SchemeBearer, scope); (err != nil) != replaced {
			t.Errorf("replaced %v: kept %q, %v", replaced, kept, err)
		}
		tokens.drop(&exchange{token: token})
	}
}

// Tenants with credentials of their own are shown to the upstream as themselves, all others as the upstream's.
func TestTenantsHaveTheirOwnCredentials(t *testing.T) {
	r := newTestRegistry(t)
	r.configure = func(given *Upstream) {
		given.Credential = credential.Config{Files: account(t, "all", planted), Tenants: map[reference.Tenant]credential.Files{
			"red": account(t, "red", planted), "nobody": {},
		}}
	}
	r.pushImage("org/app", "v1", []byte("layer"))
	g := newGate(r)
	g.set("all", planted)
	g.set("red", planted)
	c := newTestCluster(t, r)
	for _, as := range []struct {
		tenant reference.Tenant
		want   string
	}{{"red", "red"}, {"blue", "all"}, {"nobody", ""}, {testTenant, "all"}, {"red", "red"}} {
		key := Key{as.tenant, testRepository, KindTag, "v1"}
		n := c.ranked(key.owners)[0]
		_, err := n.filler.Refresh(t.Context(), key, n.catalog.Snapshot().Index())
		shown, _ := g.seen()
		if as.want == "" {
			expect(t, "an anonymous tenant", err, errdef.UpstreamUnauthorized)
			continue
		}
		expect(t, string(as.tenant), err, "")
		if last := shown[len(shown)-1]; !strings.HasPrefix(last, "Bearer "+as.want+"-") {
			t.Errorf("%s is shown as %q", as.tenant, shown)
		}
	}
}

// No other host gets anything, whatever oras-go may ask for in its name.
func TestOtherHostsGetNothing(t *testing.T) {
	u, _, _ := gated(t, with(account(t, "me", planted)))
	_, _, err := u.manifest(t.Context(), "org/app", "v1")
	expect(t, "manifest", err, "")
	tokens, ctx := u.client.tokens, auth.AppendScopesForHost(t.Context(), u.host, "repository:org/app:pull")
	for host, want := range map[string]bool{u.host: true, "other.test": false} {
		_, schemeErr := tokens.GetScheme(ctx, host)
		_, tokenErr := tokens.GetToken(ctx, host, auth.SchemeBearer, "repository:org/app:pull")
		_, setErr := tokens.Set(ctx, host, auth.SchemeBearer, "", func(context.Context) (string, error) { return "x", nil })
		if found, err := tokens.credential(ctx, host); err != nil || (found != auth.EmptyCredential) != want {
			t.Errorf("%s: credential %+v, %v", host, found, err)
		}
		for _, err := range []error{schemeErr, tokenErr, setErr} {
			if (err == nil) != want {
				t.Errorf("%s: got %v", host, err)
			}
		}
	}
}

func TestCredentialConfiguration(t *testing.T) {
	for _, configure := range []func(*Upstream){
		with(credential.Files{UsernameFile: "a"}),
		func(given *Upstream) { given.TLS.CAFile = "/does/not/exist" },
		func(given *Upstream) {
			given.Credential.Tenants = map[reference.Tenant]credential.Files{"No Tenant": {}}
		},
		func(given *Upstream) { given.Credential.Tenants = map[reference.Tenant]credential.Files{"": {}} },
		func(given *Upstream) {
			given.Credential.Tenants = map[reference.Tenant]credential.Files{"red": {UsernameFile: "a"}}
		},
	} {
		given := Upstream{Name: "up.test"}
		configure(&given)
		_, err := newUpstreams(given, FillerConfig{Observer: newTally(), Nodes: one}, noPauses{})
		expect(t, fmt.Sprintf("%+v", given), err, errdef.ConfigInvalid)
	}
}

// A token service is a stranger: what it does wrong is typed, and it is at no address that is not public.
func TestTokenServicesThatFail(t *testing.T) {
	var asked atomic.Int32
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write([]byte(`{"token":"elsewhere"}`))
	}))
	t.Cleanup(service.Close)
	for _, c := range []struct {
		name, realm string
		answer      func(http.ResponseWriter, *http.Request) bool
		allow       []netip.Prefix
		want        errdef.Reason
	}{
		{"401", "", status(401), nil, errdef.UpstreamUnauthorized},
		{"403", "", status(403), nil, errdef.UpstreamDenied},
		{"404", "", status(404), nil, errdef.UpstreamInvalid},
		{"429", "", status(429), nil, errdef.UpstreamThrottled},
		{"500", "", status(500), nil, errdef.UpstreamUnavailable},
		{"no JSON", "", answer("text/plain", "secret"), nil, errdef.UpstreamInvalid},
		{"no token", "", answer("application/json", `{"secret":"secret"}`), nil, errdef.UpstreamInvalid},
		{"large token", "", answer("application/json", `{"token":"`+strings.Repeat("secret", maxTokenBytes)+`"}`), nil,
			errdef.UpstreamInvalid},
		{"no URL", "secret", nil, nil, errdef.UpstreamInvalid},
		{"another scheme", "ftp://secret/", nil, nil, errdef.UpstreamInvalid},
		{"loopback", service.URL + "/secret", nil, nil, errdef.UpstreamInvalid},
		{"loopback by name", strings.Replace(service.URL, "127.0.0.1", "localhost", 1), nil, nil, errdef.UpstreamInvalid},
		{"metadata", "https://169.254.169.254/secret", nil, nil, errdef.UpstreamInvalid},
		{"allowed", service.URL, nil, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, ""},
		{"redirect to loopback", "", func(w http.ResponseWriter, req *http.Request) bool {
			http.Redirect(w, req, service.URL+"/secret", http.StatusFound)
			return true
		}, nil, errdef.UpstreamInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newTestRegistry(t)
			r.configure = func(given *Upstream) {
				given.Credential.Files, given.Allow = account(t, "me", planted), c.allow
			}
			r.pushImage("org/app", "v1", []byte("layer"))
			g := newGate(r)
			r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
				switch {
				case req.URL.Path == "/token":
					return c.answer(w, req)
				case req.Header.Get("Authorization") == "Bearer elsewhere":
					return false
				case c.realm == "":
					return g.spoil(w, req)
				}
				w.Header().Set(headerChallenge, `Bearer realm="`+c.realm+`"`)
				return status(http.StatusUnauthorized)(w, req)
			})
			u, _ := testUpstream(t, r.upstream())
			before := asked.Load()
			_, _, err := u.manifest(t.Context(), "org/app", "v1")
			expect(t, "manifest", err, c.want)
			if c.want != "" && asked.Load() != before {
				t.Error("the service elsewhere was asked")
			}
		})
	}
}

// Content that is stored elsewhere is fetched from there without credentials, where it may be.
func TestStorageElsewhere(t *testing.T) {
	var mu sync.Mutex
	var seen []http.Header
	content := []byte("layer")
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, req.Header)
		writeWhole(w, content)
	}))
	t.Cleanup(storage.Close)
	for _, allow := range [][]netip.Prefix{nil, {netip.MustParsePrefix("127.0.0.1/32")}} {
		r := newTestRegistry(t)
		r.configure = func(given *Upstream) { given.Credential.Files, given.Allow = account(t, "me", planted), allow }
		u, _ := testUpstream(t, r.upstream())
		g := newGate(r)
		mu.Lock()
		seen = nil
		mu.Unlock()
		r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
			if g.spoil(w, req) || !strings.HasPrefix(req.URL.Path, "/v2/org/app/blobs/") {
				return true
			}
			http.Redirect(w, req, storage.URL+"/?signature=secret", http.StatusTemporaryRedirect)
			return true
		})
		answer, err := u.blob(t.Context(), "org/app", digest.FromBytes(content), 0)
		if allow == nil {
			expect(t, "blob", err, errdef.UpstreamInvalid)
			if len(seen) != 0 {
				t.Error("the storage was asked")
			}
			continue
		}
		expect(t, "blob", err, "")
		answer.Close()
		if len(seen) != 1 || seen[0].Get("Authorization") != "" || seen[0].Get("Referer") != "" || seen[0].Get("Cookie") != "" {
			t.Errorf("the storage saw %v", seen)
		}
	}
}
