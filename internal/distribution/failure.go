package distribution

import (
	"encoding/json"
	"net/http"

	"github.com/ocistern/ocistern/internal/errdef"
)

// failure is one entry of an error response (distribution spec, "Error Codes").
type failure struct {
	Code    string            `json:"code"`
	Message string            `json:"message"`
	Detail  map[string]string `json:"detail"`
}

// cutError is a failure after the header was sent: only a cut connection tells the caller that the body is not whole.
type cutError struct{ cause error }

func (c *cutError) Error() string { return "response cut: " + c.cause.Error() }
func (c *cutError) Unwrap() error { return c.cause }

// cut aborts the response. A caller that went away itself is not worth a line.
func (h *Handler) cut(r *http.Request, err error) {
	if r.Context().Err() == nil {
		h.logger.Warn("response cut", "path", r.URL.Path, "error", err)
	}
	panic(http.ErrAbortHandler) // the way of net/http to cut a connection
}

// fail answers err with the code and status of its row in package errdef.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, endpoint route, err error) {
	code, status := errdef.HTTP(err)
	if code == "MANIFEST_UNKNOWN" && endpoint.unknown != "" {
		code = endpoint.unknown
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
