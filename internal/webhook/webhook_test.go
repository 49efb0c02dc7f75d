package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/registry"
)

// steward records what it is told to invalidate.
type steward struct {
	told    []string
	lagging []string
	err     error
}

func (s *steward) Invalidate(_ context.Context, _ registry.Principal, scopes []registry.Scope) (registry.Invalidated, error) {
	for _, scope := range scopes {
		s.told = append(s.told, scope.String())
	}
	return registry.Invalidated{Index: 7, Lagging: s.lagging}, s.err
}

func post(s *steward, token, path, body string) *httptest.ResponseRecorder {
	secret := func() ([]byte, error) { return []byte("secret"), nil }
	request := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	if token != "" {
		request.Header.Set("Authorization", token)
	}
	recorder := httptest.NewRecorder()
	New(s, secret, slog.New(slog.DiscardHandler)).ServeHTTP(recorder, request)
	return recorder
}

const digestText = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func eventOf(action, mediaType, dgst, tag string) string {
	return fmt.Sprintf(`{"id":"1","action":%q,"target":{"mediaType":%q,"size":7,"digest":%q,"length":7,"repository":"org/app","url":"http://r/x","tag":%q},`+
		`"request":{"host":"r"},"actor":{},"source":{}}`, action, mediaType, dgst, tag)
}

func TestNotifications(t *testing.T) {
	const image = "application/vnd.oci.image.manifest.v1+json"
	for name, c := range map[string]struct{ path, body, want string }{
		"a tag is pushed":         {"/webhooks/up.test", `{"events":[` + eventOf("push", image, digestText, "v1") + `]}`, "up.test/org/app:v1"},
		"a tag is deleted":        {"/webhooks/up.test", `{"events":[` + eventOf("delete", "", "", "v1") + `]}`, "up.test/org/app:v1"},
		"a manifest is pushed":    {"/webhooks/up.test", `{"events":[` + eventOf("push", image, digestText, "") + `]}`, "up.test/org/app"},
		"a manifest is deleted":   {"/webhooks/up.test", `{"events":[` + eventOf("delete", "", digestText, "") + `]}`, "up.test/org/app"},
		"a layer is pushed":       {"/webhooks/up.test", `{"events":[` + eventOf("push", "application/octet-stream", digestText, "") + `]}`, "up.test/org/app@" + digestText},
		"pulls are nothing":       {"/webhooks/up.test", `{"events":[` + eventOf("pull", image, digestText, "v1") + `]}`, ""},
		"no events":               {"/webhooks/up.test", `{"events":[]}`, ""},
		"the same twice":          {"/webhooks/up.test", `{"events":[` + eventOf("push", image, digestText, "v1") + "," + eventOf("push", image, digestText, "v1") + `]}`, "up.test/org/app:v1"},
		"names":                   {"/webhooks/", `{"names":["up.test/org/app:v1","up.test/org/*"]}`, "up.test/org/app:v1 up.test/org/*"},
		"names, to an upstream":   {"/webhooks/up.test", `{"names":["up.test/org/app"]}`, "up.test/org/app"},
		"fields that are unknown": {"/webhooks/", `{"names":["up.test/org/app"],"sender":{"a":[1]}}`, "up.test/org/app"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &steward{}
			answer := post(s, "Bearer secret", c.path, c.body)
			if got := strings.Join(s.told, " "); got != c.want || answer.Code != http.StatusOK {
				t.Errorf("%d %s: invalidated %q, want %q", answer.Code, answer.Body, got, c.want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	const names = `{"names":["up.test/org/app"]}`
	events := `{"events":[` + eventOf("push", "", "", "v1") + `]}`
	for name, c := range map[string]struct {
		steward           steward
		token, path, body string
		status            int
		told              bool
	}{
		"no token":               {token: "", path: "/webhooks/", body: names, status: 401},
		"another token":          {token: "Bearer secreT", path: "/webhooks/", body: names, status: 401},
		"a longer token":         {token: "Bearer secrets", path: "/webhooks/", body: names, status: 401},
		"no bearer":              {token: "secret", path: "/webhooks/", body: names, status: 401},
		"no JSON":                {token: "Bearer secret", path: "/webhooks/", body: "x", status: 400},
		"neither form":           {token: "Bearer secret", path: "/webhooks/", body: "{}", status: 400},
		"both forms":             {token: "Bearer secret", path: "/webhooks/up.test", body: `{"events":[],"names":[]}`, status: 400},
		"events of nobody":       {token: "Bearer secret", path: "/webhooks/", body: events, status: 400},
		"a name that is none":    {token: "Bearer secret", path: "/webhooks/", body: `{"names":["UP"]}`, status: 400},
		"an upstream that is no": {token: "Bearer secret", path: "/webhooks/../x", body: events, status: 400},
		"too long":               {token: "Bearer secret", path: "/webhooks/", body: `{"names":["` + strings.Repeat("a", maxBody) + `"]}`, status: 413},
		"too many": {
			token: "Bearer secret", path: "/webhooks/", status: 400,
			body: `{"names":["a/b"` + strings.Repeat(`,"a/b"`, registry.MaxScopes) + `]}`,
		},
		"deep": {token: "Bearer secret", path: "/webhooks/", body: strings.Repeat(`{"names":`, 20_000), status: 400},
		"unknown upstream": {
			steward: steward{err: errdef.New(errdef.UpstreamUnknown, "x")},
			token:   "Bearer secret", path: "/webhooks/", body: names, status: 404, told: true,
		},
		"no quorum": {
			steward: steward{err: errdef.New(errdef.NoQuorum, "x")},
			token:   "Bearer secret", path: "/webhooks/", body: names, status: 503, told: true,
		},
		"a node lags": {
			steward: steward{lagging: []string{"n2"}},
			token:   "Bearer secret", path: "/webhooks/", body: names, status: 503, told: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			answer := post(&c.steward, c.token, c.path, c.body)
			if answer.Code != c.status || (len(c.steward.told) > 0) != c.told || !strings.Contains(answer.Body.String(), `"reason"`) {
				t.Errorf("%d %s: told %v, want %d", answer.Code, answer.Body, c.steward.told, c.status)
			}
			if strings.Contains(answer.Body.String(), "secret") {
				t.Errorf("the answer has the token in it: %s", answer.Body)
			}
		})
	}
}

// TestNoTokenLetsNobodyIn: neither a token that cannot be read nor an empty one.
func TestNoTokenLetsNobodyIn(t *testing.T) {
	for name, token := range map[string]func() ([]byte, error){
		"empty":      func() ([]byte, error) { return nil, nil },
		"unreadable": func() ([]byte, error) { return nil, errors.New("open /etc/token: no such file") },
	} {
		for _, given := range []string{"", "Bearer ", "Bearer"} {
			s := &steward{}
			request := httptest.NewRequest(http.MethodPost, "/webhooks/", strings.NewReader(`{"names":["up.test/app"]}`))
			request.Header.Set("Authorization", given)
			recorder := httptest.NewRecorder()
			New(s, token, slog.New(slog.DiscardHandler)).ServeHTTP(recorder, request)
			if recorder.Code != http.StatusUnauthorized || s.told != nil || strings.Contains(recorder.Body.String(), "/etc/token") {
				t.Errorf("%s token, %q given: %d %s", name, given, recorder.Code, recorder.Body)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("up.test", `{"events":[`+eventOf("push", "", digestText, "v1")+`]}`)
	f.Add("", `{"names":["up.test/org/app:v1","up.test/org/*"]}`)
	f.Fuzz(func(t *testing.T, upstream, body string) {
		scopes, err := parse(upstream, []byte(body))
		if err != nil && len(scopes) > 0 || len(scopes) > registry.MaxScopes {
			t.Errorf("%d scopes, %v", len(scopes), err)
		}
		for _, scope := range scopes {
			if again, err := registry.ParseScope(scope.String()); err != nil || again != scope {
				t.Errorf("%+v is printed as %q and read as %+v, %v", scope, scope, again, err)
			}
		}
	})
}
