package distribution

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/ocistern/ocistern/internal/errdef"
)

// failure is one entry of an error response (distribution spec, "Error Codes").
type failure struct {
	Code    string            `json:"code"`
	Message string            `json:"message"`
	Detail  map[string]string `json:"detail"`
}

// fail answers err with the code and status of its row in package errdef.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	code, status := errdef.HTTP(err)
	if code == "MANIFEST_UNKNOWN" && strings.Contains(r.URL.Path, "/blobs/") {
		code = "BLOB_UNKNOWN"
	}
	if status >= http.StatusInternalServerError {
		h.logger.Warn("request failed", "method", r.Method, "path", r.URL.Path, "status", status, "error", err)
	}
	header := w.Header()
	for _, name := range []string{"Content-Length", "Content-Range", "Docker-Content-Digest", "Link"} {
		header.Del(name)
	}
	header.Set("Content-Type", "application/json")
	if status == http.StatusMethodNotAllowed {
		header.Set("Allow", "GET, HEAD")
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	body := map[string][]failure{"errors": {{
		Code: code, Message: err.Error(), Detail: map[string]string{"reason": string(errdef.ReasonOf(err))},
	}}}
	if encodeErr := json.NewEncoder(w).Encode(body); encodeErr != nil {
		h.logger.Debug("caller went away", "error", encodeErr)
	}
}
