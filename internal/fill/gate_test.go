package fill

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ocistern/ocistern/internal/credential"
)

const planted = "hunter2-planted-secret"

// gate stands before a testRegistry and lets in who shows a token of its token service, which is at /token, or, without
// a service, a name and a password.
type gate struct {
	basic     bool
	challenge string // scopes of the challenge; "" for those of the request

	// mu guards the fields below.
	mu       sync.Mutex
	accounts map[string]string // passwords by name
	identity string            // token that the service exchanges
	valid    map[string]bool   // tokens that open the gate
	issued   int               // since the last call of seen
	serial   int               // of the last token
	scopes   []string          // that the service was asked for
	shown    []string          // Authorization headers that the gate has seen, in order
}

func newGate(r *testRegistry) *gate {
	g := &gate{accounts: map[string]string{"me": planted}, identity: planted, valid: map[string]bool{}}
	r.setSpoil(g.spoil)
	return g
}

func (g *gate) spoil(w http.ResponseWriter, req *http.Request) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if req.URL.Path == "/token" {
		g.issue(w, req)
		return true
	}
	shown := req.Header.Get("Authorization")
	g.shown = append(g.shown, shown)
	if g.basic {
		name, password, _ := req.BasicAuth()
		if expected, ok := g.accounts[name]; ok && password == expected {
			return false
		}
		w.Header().Set(headerChallenge, `Basic realm="registry"`)
		return status(http.StatusUnauthorized)(w, req)
	}
	if token, ok := strings.CutPrefix(shown, "Bearer "); ok && g.valid[token] {
		return false
	}
	scope := g.challenge
	if scope == "" {
		scope = "repository:org/app:pull"
	}
	w.Header().Set(headerChallenge, `Bearer realm="http://`+req.Host+`/token",service="up.test",scope="`+scope+`"`)
	return status(http.StatusUnauthorized)(w, req)
}

// issue answers as a token service. The caller holds mu.
func (g *gate) issue(w http.ResponseWriter, req *http.Request) {
	_ = req.ParseForm()
	g.scopes = append(g.scopes, strings.Join(req.Form["scope"], " "))
	name, password, _ := req.BasicAuth()
	expected, known := g.accounts[name]
	if (!known || password != expected) && (g.identity == "" || req.Form.Get("refresh_token") != g.identity) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	g.issued, g.serial = g.issued+1, g.serial+1
	token := name + "-token-" + strconv.Itoa(g.serial)
	g.valid[token] = true
	_ = json.NewEncoder(w).Encode(map[string]string{"access_token": token})
}

// expire makes all tokens invalid.
func (g *gate) expire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.valid)
}

// close issues no more tokens, and makes all invalid.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.accounts, g.identity = nil, ""
	clear(g.valid)
}

// set changes the password of an account, and makes all tokens invalid.
func (g *gate) set(name, password string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.accounts[name] = password
	clear(g.valid)
}

// seen returns what the gate has seen since the last call, and how many tokens were issued.
func (g *gate) seen() (shown []string, issued int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	shown, issued = g.shown, g.issued
	g.shown, g.issued = nil, 0
	return shown, issued
}

// secretFile writes a file of the test.
func secretFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	rewrite(t, path, content)
	return path
}

func rewrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func account(t *testing.T, name, password string) credential.Files {
	t.Helper()
	return credential.Files{UsernameFile: secretFile(t, name), PasswordFile: secretFile(t, password)}
}
