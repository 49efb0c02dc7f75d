package fill

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"

	"github.com/ocistern/ocistern/internal/errdef"
)

// piece is an answer of an upstream: a blob, or the rest of it.
type piece struct {
	io.ReadCloser
	begins int64 // the offset of its first byte in the blob
	size   int64 // of the whole blob as the upstream states it, else negative
}

// askRange adds the range that the exchange is about. No condition goes with it: the digest tells whether the parts are
// of one whole. A redirect carries it along.
func askRange(req *http.Request) {
	if x, known := req.Context().Value(exchangeKey{}).(*exchange); known && x.from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", x.from))
	}
}

// contentRange is what a range of known bounds says about itself (RFC 9110, section 14.4).
var contentRange = regexp.MustCompile(`^bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)$`)

// checkBlob notes what the answer has of a blob. oras-go v2.7.0 sees a whole answer of known length: it knows no other,
// and would ask for the length by HEAD. The bytes are verified as they arrive, by the algorithm that was asked for.
func (x *exchange) checkBlob(resp *http.Response) error {
	switch {
	case resp.StatusCode == http.StatusOK:
		x.begins, x.size = 0, resp.ContentLength
	case resp.StatusCode == http.StatusPartialContent && x.from > 0:
		if err := x.checkRange(resp); err != nil {
			return err
		}
	default:
		return nil // oras-go makes an error of it
	}
	resp.StatusCode, resp.ContentLength = http.StatusOK, max(0, x.size)
	resp.Header.Del(headerDigest)
	resp.Header.Del("Accept-Ranges")
	return nil
}

// checkRange takes a range that begins where it was asked to, and may end early.
func (x *exchange) checkRange(resp *http.Response) error {
	text := resp.Header.Get("Content-Range")
	parts := contentRange.FindStringSubmatch(text)
	if parts == nil {
		return errdef.New(errdef.UpstreamInvalid, "its answer has Content-Range %q", shorten(text))
	}
	first, last, size := number(parts[1]), number(parts[2]), int64(-1)
	if parts[3] != "*" {
		size = number(parts[3])
	}
	length := last - first + 1
	switch {
	case first != x.from, length < 1, size >= 0 && last >= size, resp.ContentLength >= 0 && resp.ContentLength != length:
		return errdef.New(errdef.UpstreamInvalid, "its answer has Content-Range %q and %d bytes, from %d on was asked for",
			text, resp.ContentLength, x.from)
	}
	x.begins, x.size = first, size
	return nil
}

// number reads at most 18 digits.
func number(digits string) int64 {
	n, _ := strconv.ParseInt(digits, 10, 64) // the pattern leaves nothing that could fail
	return n
}
