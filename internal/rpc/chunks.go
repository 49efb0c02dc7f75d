package rpc

import (
	"errors"
	"io"

	"github.com/ocistern/ocistern/internal/errdef"
)

// sendChunks sends the length bytes of content in messages as they come, or fails: a stream that ends without an error
// has brought all of them. Each chunk is memory of its own, since gRPC may keep a message after it was sent.
func sendChunks(content io.Reader, length int64, send func([]byte) error) error {
	var free []byte
	for length > 0 {
		if len(free) < chunkBytes/4 { // what arrives is often less than a chunk: the next one goes behind it
			free = make([]byte, min(length, chunkBytes))
		}
		n, err := content.Read(free[:min(length, int64(len(free)))])
		if n > 0 {
			length -= int64(n)
			if err := send(free[:n:n]); err != nil {
				return err
			}
			free = free[n:]
		}
		switch {
		case errors.Is(err, io.EOF) && length > 0:
			return errdef.New(errdef.SizeMismatch, "content ends %d bytes early", length)
		case err != nil && !errors.Is(err, io.EOF):
			return errdef.Wrap(errdef.ReasonOf(err), err, "cannot read content")
		}
	}
	return nil
}

// chunkReader reads the chunks that recv brings, length bytes in all. It is not safe for concurrent use.
type chunkReader struct {
	recv   func() ([]byte, error)
	cancel func()
	length int64  // still to come from recv
	chunk  []byte // not read yet
}

// Read implements io.Reader. An end before length bytes is reason UNAVAILABLE.
func (r *chunkReader) Read(buffer []byte) (int, error) {
	for len(r.chunk) == 0 {
		chunk, err := r.recv()
		switch {
		case errors.Is(err, io.EOF) && r.length > 0:
			return 0, errdef.New(errdef.Unavailable, "content ended %d bytes early", r.length)
		case err != nil:
			return 0, err
		case int64(len(chunk)) > r.length:
			return 0, errdef.New(errdef.SizeMismatch, "content is longer than was announced")
		}
		r.chunk, r.length = chunk, r.length-int64(len(chunk))
	}
	n := copy(buffer, r.chunk)
	r.chunk = r.chunk[n:]
	return n, nil
}

// Close ends the call, whether or not all was read.
func (r *chunkReader) Close() error {
	r.cancel()
	return nil
}
