package upstream

import (
	"context"
	"net/http"

	"golang.org/x/time/rate"
)

// pieceBytes is how much goes over a bounded link at once: some hundred microseconds of it.
const pieceBytes = 128 << 10

// passing hands a response on as it comes. It is counted when its header goes out, since only then its digest is known,
// and its body is no faster than the link.
type passing struct {
	http.ResponseWriter
	ctx     context.Context
	link    *rate.Limiter // of bytes, shared by all responses; nil for no bound
	count   func(status int)
	counted bool
}

// WriteHeader implements http.ResponseWriter.
func (p *passing) WriteHeader(status int) {
	if !p.counted {
		p.counted = true
		p.count(status)
	}
	p.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (p *passing) Write(body []byte) (written int, err error) {
	if !p.counted {
		p.WriteHeader(http.StatusOK)
	}
	if p.link == nil {
		return p.ResponseWriter.Write(body)
	}
	for written < len(body) && err == nil {
		piece := body[written:min(written+pieceBytes, len(body))]
		if err = p.link.WaitN(p.ctx, len(piece)); err != nil {
			break
		}
		var n int
		n, err = p.ResponseWriter.Write(piece)
		written += n
	}
	return written, err
}

// newLink returns a link of so many bytes a second, nil for 0.
func newLink(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), pieceBytes)
}
