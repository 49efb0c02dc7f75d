package distribution

import (
	"math"
	"net/http"
	"regexp"
	"strconv"

	"github.com/ocistern/ocistern/internal/errdef"
)

var rangePattern = regexp.MustCompile(`^bytes=(\d{1,19})-(\d{0,19})$`)

// byteRange is what part of a blob was asked for. The last byte is inclusive, -1 for that of the blob.
type byteRange struct {
	asked       bool
	first, last int64
}

// requestedRange reads the Range header: one range from a first byte on (RFC 9110, section 14). Other forms (several
// ranges, a suffix) are ignored, as the RFC allows, and so is a range with a condition that we give no validator for:
// the whole content is sent.
func requestedRange(header http.Header) (byteRange, error) {
	whole := byteRange{last: -1}
	text := header.Get("Range")
	parts := rangePattern.FindStringSubmatch(text)
	if parts == nil || header.Get("If-Range") != "" {
		return whole, nil
	}
	asked := byteRange{asked: true, first: position(parts[1]), last: -1}
	if parts[2] != "" {
		asked.last = position(parts[2])
		if asked.last < asked.first {
			return whole, errdef.New(errdef.RangeInvalid, "range %q ends before it starts", text).WithRemedy("bytes=FIRST-LAST")
		}
	}
	return asked, nil
}

// position reads at most 19 digits; what no file can have is as good as the largest number.
func position(digits string) int64 {
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return math.MaxInt64
	}
	return n
}
