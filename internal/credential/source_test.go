package credential

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/ocistern/ocistern/internal/errdef"
)

const planted = "hunter2-planted-secret"

func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// file writes a new file of the test.
func file(t *testing.T, content string) string {
	t.Helper()
	return write(t, filepath.Join(t.TempDir(), "file"), content)
}

func source(t *testing.T, files Files, host string) *Source {
	t.Helper()
	s, err := NewSource(files, host)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// expect compares what a Source gives with want, or with UPSTREAM_UNAUTHORIZED when broken. No error has a secret.
func expect(t *testing.T, s *Source, want auth.Credential, broken bool) {
	t.Helper()
	got, err := s.Credential(t.Context())
	if got != want || (err != nil) != broken || (broken && !errors.Is(err, errdef.ErrUpstreamUnauthorized)) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if err != nil && strings.Contains(err.Error(), "planted") {
		t.Errorf("the error has the secret: %v", err)
	}
}

func TestFiles(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for _, c := range []struct {
		name   string
		files  Files
		want   auth.Credential
		broken bool
	}{
		{"none", Files{}, auth.EmptyCredential, false},
		{"password", Files{UsernameFile: file(t, "me\n"), PasswordFile: file(t, planted+"\r\n")},
			auth.Credential{Username: "me", Password: planted}, false},
		{"spaces count", Files{UsernameFile: file(t, "me"), PasswordFile: file(t, " x ")},
			auth.Credential{Username: "me", Password: " x "}, false},
		{"token", Files{TokenFile: file(t, planted+"\n")}, auth.Credential{AccessToken: planted}, false},
		{"identity token", Files{IdentityTokenFile: file(t, planted)}, auth.Credential{RefreshToken: planted}, false},
		{"no password", Files{UsernameFile: file(t, "me"), PasswordFile: none}, auth.EmptyCredential, true},
		{"no username", Files{UsernameFile: none, PasswordFile: file(t, planted)}, auth.EmptyCredential, true},
		{"empty password", Files{UsernameFile: file(t, "me"), PasswordFile: file(t, "\n")}, auth.EmptyCredential, true},
		{"colon", Files{UsernameFile: file(t, "me:"+planted), PasswordFile: file(t, "x")}, auth.EmptyCredential, true},
		{"two tokens", Files{TokenFile: file(t, planted+"\n"+planted)}, auth.EmptyCredential, true},
		{"no token", Files{IdentityTokenFile: none}, auth.EmptyCredential, true},
		{"too large", Files{TokenFile: file(t, strings.Repeat(planted, 1<<16))}, auth.EmptyCredential, true},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, source(t, c.files, "registry.test"), c.want, c.broken) })
	}
}

func TestFilesThatContradictEachOther(t *testing.T) {
	for _, files := range []Files{
		{UsernameFile: "a"}, {PasswordFile: "a"}, {TokenFile: "a", IdentityTokenFile: "b"}, {DockerConfig: "a", TokenFile: "b"},
		{DockerConfig: "a", UsernameFile: "b", PasswordFile: "c"},
	} {
		if _, err := NewSource(files, "registry.test"); !errors.Is(err, errdef.ErrConfigInvalid) {
			t.Errorf("%+v: got %v", files, err)
		}
	}
}

func TestDockerConfig(t *testing.T) {
	basic := base64.StdEncoding.EncodeToString([]byte("me:" + planted))
	me := auth.Credential{Username: "me", Password: planted}
	for _, c := range []struct {
		name, host, content string
		want                auth.Credential
		broken              bool
	}{
		{"auth", "a.test", `{"auths":{"a.test":{"auth":"` + basic + `"},"b.test":{}}}`, me, false},
		{"with port", "a.test:5000", `{"auths":{"a.test":{},"a.test:5000":{"auth":"` + basic + `"}}}`, me, false},
		{"plain", "a.test", `{"auths":{"a.test":{"username":"me","password":"` + planted + `"}}}`, me, false},
		{"identity token", "a.test", `{"auths":{"a.test":{"identitytoken":"` + planted + `"}}}`,
			auth.Credential{RefreshToken: planted}, false},
		{"registry token", "a.test", `{"auths":{"a.test":{"registrytoken":"` + planted + `"}}}`,
			auth.Credential{AccessToken: planted}, false},
		{"with scheme", "a.test", `{"auths":{"https://a.test/v2/":{"auth":"` + basic + `"}}}`, me, false},
		{"Docker Hub", "registry-1.docker.io", `{"auths":{"https://index.docker.io/v1/":{"auth":"` + basic + `"}}}`, me, false},
		{"Docker Hub, short", "registry-1.docker.io", `{"auths":{"index.docker.io":{"auth":"` + basic + `"}}}`, me, false},
		{"another registry", "a.test", `{"auths":{"b.test":{"auth":"` + basic + `"}}}`, auth.EmptyCredential, false},
		{"another registry is broken", "a.test", `{"auths":{"b.test":{"auth":"?"},"a.test":{"auth":"` + basic + `"}}}`, me, false},
		{"for a part of the registry", "a.test", `{"auths":{"a.test/org":{"auth":"` + basic + `"}}}`, auth.EmptyCredential, false},
		{"nothing", "a.test", `{}`, auth.EmptyCredential, false},
		{"no colon", "a.test", `{"auths":{"a.test":{"auth":"` + base64.StdEncoding.EncodeToString([]byte(planted)) + `"}}}`,
			auth.EmptyCredential, true},
		{"no base64", "a.test", `{"auths":{"a.test":{"auth":"` + planted + `?"}}}`, auth.EmptyCredential, true},
		{"wrong type", "a.test", `{"auths":{"a.test":"` + planted + `"}}`, auth.EmptyCredential, true},
		{"no JSON", "a.test", planted, auth.EmptyCredential, true},
		{"empty", "a.test", "", auth.EmptyCredential, true},
		{"a helper with a path", "a.test", `{"credsStore":"../../planted"}`, auth.EmptyCredential, true},
		{"a helper that is not there", "a.test", `{"credsStore":"not-installed"}`, auth.EmptyCredential, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			expect(t, source(t, Files{DockerConfig: file(t, c.content)}, c.host), c.want, c.broken)
		})
	}
	expect(t, source(t, Files{DockerConfig: filepath.Join(t.TempDir(), "none")}, "a.test"), auth.EmptyCredential, true)
}

// What is read is what is there now; what cannot be read is an error, and not what was there before.
func TestReload(t *testing.T) {
	path := file(t, `{"auths":{"a.test":{"identitytoken":"one"}}}`)
	s := source(t, Files{DockerConfig: path}, "a.test")
	first := s.Revision()
	expect(t, s, auth.Credential{RefreshToken: "one"}, false)
	if s.Revision() != first {
		t.Error("reading changed the revision")
	}
	write(t, path, `{"auths":{"a.test":{"identitytoken":"the second"}}}`)
	if s.Revision() == first {
		t.Error("a new credential was not noticed")
	}
	expect(t, s, auth.Credential{RefreshToken: "the second"}, false)
	write(t, path, `{"auths":`)
	expect(t, s, auth.EmptyCredential, true)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect(t, s, auth.EmptyCredential, true)
}

func FuzzDockerConfig(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"auths":{"a.test":{"auth":"bWU6eA=="}}}`, `{"auths":{"a.test":{"auth":"bWU="}}}`, `{"auths":null}`,
		`{"auths":{"https://a.test/v1/":{"identitytoken":"x"}}}`, `{"credsStore":"/"}`, `{"credHelpers":{"a.test":"-"}}`, `[[[`,
	} {
		f.Add(seed)
	}
	path := filepath.Join(f.TempDir(), "config.json")
	f.Setenv("PATH", f.TempDir()) // no helper is found
	f.Fuzz(func(t *testing.T, content string) {
		write(t, path, content)
		found, err := source(t, Files{DockerConfig: path}, "a.test").Credential(t.Context())
		if err != nil && (found != auth.EmptyCredential || errdef.ReasonOf(err) != errdef.UpstreamUnauthorized) {
			t.Errorf("got %+v, %v", found, err)
		}
	})
}
