// Package webhook takes the notifications of registries over HTTP and invalidates what they name, on all nodes, before it
// answers. It understands the envelope of CNCF distribution and a plain form.
//
// It believes a notification only so far that it asks the upstream again: one that lies costs requests. The node's
// composition root mounts it on the registry address, when a token is configured.
package webhook

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
)

// Path is where the handler is mounted: Path + NAME for the envelope of the registry that is the upstream NAME, Path alone
// for the plain form.
const Path = "/webhooks/"

// maxBody bounds a notification, in bytes.
const maxBody = 1 << 20

// Invalidator is registry.Steward.
type Invalidator interface {
	Invalidate(ctx context.Context, principal registry.Principal, scopes []registry.Scope) (registry.Invalidated, error)
}

// Handler serves POST. It is safe for concurrent use.
type Handler struct {
	invalidator Invalidator
	token       func() ([]byte, error)
	logger      *slog.Logger
}

// New returns a Handler. token is called for each request and returns the secret that callers must give as a bearer token.
func New(invalidator Invalidator, token func() ([]byte, error), logger *slog.Logger) *Handler {
	return &Handler{invalidator: invalidator, token: token, logger: logger}
}

// answer is what a registry is told. Registries repeat a notification that was not answered with 2xx.
type answer struct {
	Index       uint64   `json:"catalogIndex,omitempty"`
	Invalidated []string `json:"invalidated"`
	Lagging     []string `json:"lagging,omitempty"`
	Error       string   `json:"error,omitempty"`
	Reason      string   `json:"reason,omitempty"`
}

// ServeHTTP answers 200 when all nodes have it, 401 without the token, 4xx for what is not understood, and 503 when it has to
// be repeated.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	done, status, err := h.serve(r)
	if err != nil {
		done.Error, done.Reason = err.Error(), string(errdef.ReasonOf(err))
		h.logger.Warn("a notification was refused", "status", status, "error", err)
	} else {
		h.logger.Info("a notification was obeyed", "invalidated", done.Invalidated, "index", done.Index)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="ocistern"`)
	}
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(done); err != nil {
		h.logger.Debug("a registry did not wait for the answer", "error", err)
	}
}

func (h *Handler) serve(r *http.Request) (answer, int, error) {
	done := answer{Invalidated: []string{}}
	if r.Method != http.MethodPost {
		return done, http.StatusMethodNotAllowed, errdef.New(errdef.Unsupported, "%s is not supported here", r.Method).WithRemedy("POST")
	}
	if err := h.authenticate(r); err != nil {
		return done, http.StatusUnauthorized, err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return done, http.StatusBadRequest, errdef.Wrap(errdef.UsageInvalid, err, "the notification was cut off")
	case len(body) > maxBody:
		return done, http.StatusRequestEntityTooLarge, errdef.New(errdef.UsageInvalid, "the notification has more than %d bytes", maxBody)
	}
	scopes, err := parse(strings.TrimPrefix(r.URL.Path, Path), body)
	if err != nil {
		return done, http.StatusBadRequest, err
	}
	if len(scopes) == 0 { // pulls, for example
		return done, http.StatusOK, nil
	}
	principal := registry.Principal{Name: "webhook", Tenant: reference.DefaultTenant}
	invalidated, err := h.invalidator.Invalidate(r.Context(), principal, scopes)
	switch {
	case errdef.ReasonOf(err) == errdef.UpstreamUnknown, errdef.ReasonOf(err) == errdef.UsageInvalid:
		return done, http.StatusNotFound, err
	case err != nil:
		return done, http.StatusServiceUnavailable, err
	}
	done.Index, done.Lagging = uint64(invalidated.Index), invalidated.Lagging
	for _, scope := range scopes {
		done.Invalidated = append(done.Invalidated, scope.String())
	}
	if len(done.Lagging) > 0 {
		return done, http.StatusServiceUnavailable, errdef.New(errdef.Degraded, "not confirmed by %v", done.Lagging).WithRemedy("repeat it")
	}
	return done, http.StatusOK, nil
}

// authenticate compares digests, so that neither the time nor the length tells anything.
func (h *Handler) authenticate(r *http.Request) error {
	given, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	secret, err := h.token()
	if err != nil { // which names a file: nothing for a stranger
		h.logger.Error("the token of the webhook cannot be read", "error", err)
		return errdef.New(errdef.Denied, "the node has no token to compare with").WithRemedy("its log says why")
	}
	want, got := sha256.Sum256(secret), sha256.Sum256([]byte(given))
	if !bearer || len(secret) == 0 || subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
		return errdef.New(errdef.Denied, "the notification has no valid token").
			WithRemedy("send the header Authorization: Bearer TOKEN, as webhook.token-file has it")
	}
	return nil
}
