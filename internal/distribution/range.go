package distribution

import (
	"math"
	"regexp"
	"strconv"

	"github.com/ocistern/ocistern/internal/errdef"
)

var rangePattern = regexp.MustCompile(`^bytes=(\d{1,19})-(\d{0,19})$`)

// byteRange is the end of the range asked for; end is inclusive and -1 for "to the last byte".
type byteRange struct {
	asked bool
	end   int64
}

// parseRange reads a Range header with one range from a first byte on (RFC 9110, section 14). Other forms (several
// ranges, a suffix) are ignored, as the RFC allows: the whole content is sent.
func parseRange(header string) (offset int64, r byteRange, err error) {
	parts := rangePattern.FindStringSubmatch(header)
	if parts == nil {
		return 0, byteRange{end: -1}, nil
	}
	offset, err = strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		offset = math.MaxInt64
	}
	end := int64(-1)
	if parts[2] != "" {
		if end, err = strconv.ParseInt(parts[2], 10, 64); err != nil {
			end = math.MaxInt64
		}
		if end < offset {
			return 0, byteRange{}, errdef.New(errdef.RangeInvalid, "range %q ends before it starts", header).WithRemedy("bytes=FIRST-LAST")
		}
	}
	return offset, byteRange{asked: true, end: end}, nil
}
