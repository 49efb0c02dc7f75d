package node

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/ocistern/ocistern/internal/registry"
	"github.com/ocistern/ocistern/internal/secretfile"
	"github.com/ocistern/ocistern/internal/webhook"
)

// withWebhook puts the notifications of registries beside the distribution API, where a token is configured. The file is read
// for each of them: a secret may be replaced while the node runs.
func (n *Node) withWebhook(api http.Handler, steward *registry.Steward) http.Handler {
	path := n.config.WebhookTokenFile
	if path == "" {
		return api
	}
	hook := webhook.New(steward, func() ([]byte, error) { return readToken(path) }, n.options.Logger.With("part", "webhook"))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, webhook.Path) {
			hook.ServeHTTP(w, r)
			return
		}
		api.ServeHTTP(w, r)
	})
}

func readToken(path string) ([]byte, error) {
	content, err := secretfile.Read(path)
	return bytes.TrimSpace(content), err
}
