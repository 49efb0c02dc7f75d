// Package snapshotv1 is the wire of snapshots: generated messages and services, and the caller's side of an upload.
package snapshotv1

import (
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/ocistern/ocistern/internal/errdef"
)

// uploadBytes is the size of a chunk of a snapshot on its way to a node.
const uploadBytes = 32 << 10

// Upload is the caller's side of Restore: it sends a snapshot and returns the answer. A connection that broke once all was
// sent is reason OUTCOME_UNKNOWN, one that broke before is UNAVAILABLE: then nothing was changed.
func Upload(
	stream grpc.ClientStreamingClient[RestoreRequest, RestoreResponse], from io.Reader, force bool,
) (*RestoreResponse, error) {
	options := &RestoreRequest_Options{Force: force}
	err := stream.Send(&RestoreRequest{Part: &RestoreRequest_Options_{Options: options}})
	for err == nil {
		chunk := make([]byte, uploadBytes) // its own: gRPC may keep a message after it was sent
		n, read := io.ReadFull(from, chunk)
		if n > 0 {
			err = stream.Send(&RestoreRequest{Part: &RestoreRequest_Chunk{Chunk: chunk[:n]}})
		}
		if errors.Is(read, io.EOF) || errors.Is(read, io.ErrUnexpectedEOF) {
			break
		}
		if read != nil {
			return nil, errdef.Wrap(errdef.ReasonOf(read), read, "cannot read the snapshot")
		}
	}
	response, answer := stream.CloseAndRecv()
	if err == nil && answer != nil && len(status.Convert(answer).Details()) == 0 {
		return nil, errdef.Wrap(errdef.OutcomeUnknown, errdef.FromGRPC(answer), "all was sent, and no answer came")
	}
	return response, errdef.FromGRPC(answer)
}
