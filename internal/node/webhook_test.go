package node

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ocistern/ocistern/internal/config"
)

// TestWebhook: a notification reaches the catalog through a whole node, and the token may change while it runs.
func TestWebhook(t *testing.T) {
	cfg := configFor(t, t.TempDir())
	cfg.WebhookTokenFile = filepath.Join(t.TempDir(), "token")
	cfg.Upstreams = []config.Upstream{{Name: "up.test", URL: "http://127.0.0.1:1"}}
	token := func(text string) {
		t.Helper()
		if err := os.WriteFile(cfg.WebhookTokenFile, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	token("first")
	n, _ := begin(t, cfg)
	send := func(token string) int {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
			"http://"+n.listeners.registry.Addr().String()+"/webhooks/", strings.NewReader(`{"names":["up.test/app:v1"]}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode
	}
	deadline := time.Now().Add(patience)
	for send("first") != http.StatusOK { // until it leads, at the feature level that it takes
		if time.Now().After(deadline) {
			t.Fatal("the notification is not taken")
		}
	}
	snapshot := n.catalog.Snapshot()
	if !snapshot.Invalidated("default", "up.test/app", 0) {
		t.Error("the catalog does not know of it")
	}
	if status := send("second"); status != http.StatusUnauthorized {
		t.Errorf("another token: %d", status)
	}
	token("second")
	if status := send("second"); status != http.StatusOK {
		t.Errorf("the new token: %d", status)
	}
	if status, _ := get(t, n.listeners.registry, "/v2/"); status != http.StatusOK {
		t.Errorf("/v2/ beside it: %d", status)
	}
}
