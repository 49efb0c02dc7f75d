package fill

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"

	oras "oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/ocistern/ocistern/internal/errdef"
)

// reasonOfStatus maps the status of an answer that is not the one asked for. A 404 has no place here: whether it is a
// definite one depends on the request.
func reasonOfStatus(status int) errdef.Reason {
	switch {
	case status == http.StatusUnauthorized:
		return errdef.UpstreamUnauthorized
	case status == http.StatusForbidden:
		return errdef.UpstreamDenied
	case status == http.StatusTooManyRequests:
		return errdef.UpstreamThrottled
	case status == http.StatusRequestTimeout, status == http.StatusGatewayTimeout:
		return errdef.UpstreamTimeout
	case status >= http.StatusInternalServerError:
		return errdef.UpstreamUnavailable
	}
	return errdef.UpstreamInvalid
}

// networkFailure types an error of the connection: no answer came, or it was cut off. URLs stay out of the text, since
// those of redirects carry signatures.
func networkFailure(err error) error {
	var typed *errdef.Error
	if errors.As(err, &typed) {
		return typed // alone: http.Client wraps it together with the URL
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	var network net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return errdef.Wrap(errdef.Unavailable, err, "the fill was stopped")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return errdef.Wrap(errdef.UpstreamTimeout, err, "no answer in time")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errdef.Wrap(errdef.UpstreamUnavailable, err, "the answer was cut off")
	}
	return errdef.Wrap(errdef.UpstreamUnavailable, err, "no answer")
}

// failure types what oras-go returned for a request about an object ("manifest v1", "blob sha256:..."). Only oras-go's
// own ErrNotFound is a definite 404; it comes from the object's endpoint, never from a token service or a redirect.
func (u *upstream) failure(err error, object string) error {
	var typed *errdef.Error
	var answered *errcode.ErrorResponse
	switch {
	case errors.As(err, &typed):
		return errdef.Wrap(typed.Reason, err, "upstream %s, %s", u.name, object)
	case errors.Is(err, oras.ErrNotFound):
		return errdef.New(errdef.NotFound, "upstream %s has no %s", u.name, object)
	case errors.As(err, &answered) && answered.StatusCode == http.StatusNotFound:
		// The referrers API said that there is no such repository (NAME_UNKNOWN).
		return errdef.New(errdef.NotFound, "upstream %s has no %s: %s", u.name, object, shorten(answered.Errors.Error()))
	case errors.As(err, &answered):
		return u.answered(answered, object)
	}
	return errdef.Wrap(errdef.UpstreamInvalid, err, "upstream %s, %s", u.name, object)
}

func (u *upstream) answered(answer *errcode.ErrorResponse, object string) error {
	text := http.StatusText(answer.StatusCode)
	if len(answer.Errors) > 0 {
		text = shorten(answer.Errors.Error())
	}
	failure := errdef.New(reasonOfStatus(answer.StatusCode), "upstream %s answered %d (%s) for %s",
		u.name, answer.StatusCode, text, object)
	switch failure.Reason {
	case errdef.UpstreamUnauthorized, errdef.UpstreamDenied:
		return failure.WithRemedy("check the name, and the credentials of the upstream")
	case errdef.UpstreamThrottled:
		return failure.WithRemedy("ask again later")
	}
	return failure
}
