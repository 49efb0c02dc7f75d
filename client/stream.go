package client

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/ocistern/ocistern/internal/errdef"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
)

// blobStream is the answer of one node to one FetchBlob, with a bound on how long the node may be silent.
type blobStream struct {
	stream   grpc.ServerStreamingClient[registryv1.FetchBlobResponse]
	watchdog *time.Timer
	cancel   context.CancelCauseFunc
	cause    func() error
}

var errSilent = errors.New("node sent nothing for too long")

// openStream asks node for content and waits for the header, at most patience. Later parts may take as long as the
// client lets one attempt take. The caller closes the stream.
func (c *Client) openStream(
	ctx context.Context, node *endpoint, patience time.Duration, request *registryv1.FetchBlobRequest,
) (*blobStream, *registryv1.FetchBlobResponse_Header, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &blobStream{cancel: cancel, cause: func() error { return context.Cause(ctx) }}
	s.watchdog = time.AfterFunc(patience, func() { cancel(errSilent) })
	var err error
	if s.stream, err = node.api.FetchBlob(ctx, request); err != nil {
		s.close()
		return nil, nil, err
	}
	part, err := s.receive(patience)
	if err == nil && part.GetHeader() == nil {
		err = misbehaved{errdef.New(errdef.Internal, "node at %s sent a blob without a header", node.address)}
	}
	if err != nil {
		s.close()
		return nil, nil, err
	}
	return s, part.GetHeader(), nil
}

// receive returns the next part, io.EOF after the last one.
func (s *blobStream) receive(patience time.Duration) (*registryv1.FetchBlobResponse, error) {
	s.watchdog.Reset(patience)
	defer s.watchdog.Stop()
	part, err := s.stream.Recv()
	if err == nil || errors.Is(err, io.EOF) {
		return part, err
	}
	if errors.Is(s.cause(), errSilent) {
		return nil, errdef.Wrap(errdef.Unavailable, errSilent, "blob stalled for %s", patience)
	}
	return nil, errdef.FromGRPC(err)
}

func (s *blobStream) close() {
	s.watchdog.Stop()
	s.cancel(nil)
}
