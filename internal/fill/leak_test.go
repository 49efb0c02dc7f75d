package fill

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/credential"
)

// lockedBuffer is a log that many goroutines write.
type lockedBuffer struct {
	// mu guards buffer.
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

const plantedToken = "bearer-planted-token"

// echo is an upstream that repeats what it was shown wherever it can.
func echo(way string, basic bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, req *http.Request) bool {
		body, _ := io.ReadAll(req.Body)
		shown := req.Header.Get("Authorization")
		_, password, _ := req.BasicAuth()
		said := strings.Join([]string{shown, password, string(body)}, " ")
		switch {
		case req.URL.Path == "/token" && way == "token service":
			http.Error(w, `{"errors":[{"code":"`+said+`","message":"`+said+`"}]}`, http.StatusForbidden)
		case req.URL.Path == "/token":
			_ = json.NewEncoder(w).Encode(map[string]string{"token": plantedToken})
		case shown == "" && basic:
			w.Header().Set(headerChallenge, `Basic realm="up.test"`)
			w.WriteHeader(http.StatusUnauthorized)
		case shown == "":
			w.Header().Set(headerChallenge, `Bearer realm="http://`+req.Host+`/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		case way == "error", way == "token service":
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			_ = json.NewEncoder(w).Encode(map[string]any{
				"errors": []map[string]string{{"code": "DENIED", "message": said, "detail": said}},
			})
		case way == "challenge":
			w.Header().Set(headerChallenge, `Bearer realm="ftp://`+said+`",scope="`+said+`"`)
			w.WriteHeader(http.StatusUnauthorized)
		case way == "header":
			w.Header().Set("Content-Type", "text/"+strings.ReplaceAll(said, " ", "+"))
			w.Header().Set(headerDigest, said)
			_, _ = io.WriteString(w, said)
		case way == "redirect":
			http.Redirect(w, req, "http://127.0.0.1:1/?"+strings.ReplaceAll(said, " ", "+"), http.StatusFound)
		case way == "next page":
			w.Header().Set("Link", `<http://127.0.0.1:1/`+said+`>; rel="next"`)
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			_, _ = io.WriteString(w, `{"schemaVersion":2,"manifests":[]}`)
		}
		return true
	}
}

// No credential gets into an error, a log or the replicated log, whatever the upstream does with it.
func TestCredentialsStayOutOfErrorsLogsAndCatalog(t *testing.T) {
	basicHeader := base64.StdEncoding.EncodeToString([]byte("me:" + planted))
	for _, way := range []string{"error", "token service", "challenge", "header", "redirect", "next page"} {
		for name, files := range map[string]credential.Files{
			"basic": account(t, "me", planted), "token": account(t, "me", planted),
			"identity token": {IdentityTokenFile: secretFile(t, planted)}, "static token": {TokenFile: secretFile(t, planted)},
		} {
			t.Run(way+"/"+name, func(t *testing.T) {
				r := newTestRegistry(t)
				r.configure = with(files)
				r.setSpoil(echo(way, name == "basic"))
				c := newTestCluster(t, r)
				log := &lockedBuffer{}
				logger := slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				var errs []error
				for _, n := range c.nodes {
					n.filler.Logger, n.router.Logger = logger, logger
					_, tag := n.tag(t.Context(), "v1")
					_, list := n.referrers(t.Context(), digest.FromString("subject"))
					_, blob := n.content(t.Context(), ContentBlob, digest.FromString("blob"))
					_, manifest := n.content(t.Context(), ContentManifest, digest.FromString("manifest"))
					errs = append(errs, tag, list, blob, manifest)
				}
				said := fmt.Sprintf("%v %+v %s", errs, errs, log)
				c.set(func(c *testCluster) { said += string(c.log) })
				for _, secret := range []string{planted, plantedToken, basicHeader} {
					if at := strings.Index(said, secret); at >= 0 {
						t.Errorf("%s: ...%s", secret, said[max(0, at-200):at+len(secret)])
					}
				}
				if c.observer.requests[operationManifest] < 2 {
					t.Errorf("the upstream was not shown anything: %v", c.observer.requests)
				}
			})
		}
	}
}

// The addresses that a manifest names for its layers (descriptor.urls) are never asked, not even where they may be.
func TestForeignLayersAreNotFollowed(t *testing.T) {
	foreign := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("was asked") }))
	t.Cleanup(foreign.Close)
	r := newTestRegistry(t)
	config := r.pushBlob("org/app", ocispec.MediaTypeImageConfig, []byte(`{}`))
	layer := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("layer"), Size: 5, URLs: []string{foreign.URL},
	}
	manifest := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer}}
	manifest.SchemaVersion = 2
	r.pushManifest("org/app", "v1", manifest.MediaType, manifest)
	c := newTestCluster(t, r)
	if _, err := c.nodes[0].tag(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	_, err := c.nodes[0].content(t.Context(), ContentBlob, layer.Digest)
	if err == nil {
		t.Error("the layer was found")
	}
}
