package rpc

import (
	"bufio"
	"context"
	"io"

	"google.golang.org/grpc"

	"github.com/ocistern/ocistern/cluster"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	snapshotv1 "github.com/ocistern/ocistern/internal/proto/ocistern/snapshot/v1"
)

// Snapshots saves the catalog and restores it. Package node implements it: it finds the leader.
type Snapshots interface {
	SaveSnapshot(ctx context.Context, to io.Writer, local bool) error
	RestoreSnapshot(ctx context.Context, from io.Reader, force bool) (cluster.Restored, error)
}

type snapshotService struct {
	snapshotv1.UnimplementedSnapshotServiceServer
	snapshots Snapshots
}

// Save implements the snapshot service.
func (s *snapshotService) Save(
	request *snapshotv1.SaveRequest, stream grpc.ServerStreamingServer[snapshotv1.SaveResponse],
) error {
	to := bufio.NewWriterSize(writerFunc(func(p []byte) error {
		return stream.Send(&snapshotv1.SaveResponse{Chunk: append([]byte(nil), p...)})
	}), chunkBytes)
	if err := s.snapshots.SaveSnapshot(stream.Context(), to, request.GetLocal()); err != nil {
		return err
	}
	return to.Flush()
}

// writerFunc is a writer that takes all or fails.
type writerFunc func([]byte) error

// Write implements io.Writer.
func (w writerFunc) Write(p []byte) (int, error) {
	if err := w(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Restore implements the snapshot service.
func (s *snapshotService) Restore(
	stream grpc.ClientStreamingServer[snapshotv1.RestoreRequest, snapshotv1.RestoreResponse],
) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	options := first.GetOptions()
	if options == nil {
		return errdef.New(errdef.CommandInvalid, "a restore begins with its options")
	}
	done, err := s.snapshots.RestoreSnapshot(stream.Context(), &uploadReader{stream: stream}, options.GetForce())
	if err != nil {
		return err
	}
	return stream.SendAndClose(&snapshotv1.RestoreResponse{
		Before: uint64(done.Before), Index: uint64(done.Index),
		SnapshotIndex: uint64(done.Snapshot.Index), SnapshotClusterId: done.Snapshot.ClusterID,
	})
}

// uploadReader reads the chunks of a restore.
type uploadReader struct {
	stream grpc.ClientStreamingServer[snapshotv1.RestoreRequest, snapshotv1.RestoreResponse]
	chunk  []byte // not read yet
}

// Read implements io.Reader.
func (r *uploadReader) Read(p []byte) (int, error) {
	for len(r.chunk) == 0 {
		request, err := r.stream.Recv()
		if err != nil {
			return 0, err // io.EOF when the caller has sent all
		}
		r.chunk = request.GetChunk()
	}
	n := copy(p, r.chunk)
	r.chunk = r.chunk[n:]
	return n, nil
}

// RestoreSnapshot hands a snapshot on to the node at address, the leader, whose errors it returns. A connection that
// breaks once all was sent is OUTCOME_UNKNOWN.
func (c *PeerClient) RestoreSnapshot(
	ctx context.Context, address string, from io.Reader, force bool,
) (cluster.Restored, error) {
	conn, err := c.pool.get(address)
	if err != nil {
		return cluster.Restored{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := snapshotv1.NewSnapshotServiceClient(conn).Restore(ctx)
	if err != nil {
		return cluster.Restored{}, peerError(address, err)
	}
	response, err := snapshotv1.Upload(stream, from, force)
	if err != nil {
		return cluster.Restored{}, peerError(address, err)
	}
	return restoredOf(response), nil
}

func restoredOf(m *snapshotv1.RestoreResponse) cluster.Restored {
	return cluster.Restored{
		Before: catalog.LogIndex(m.GetBefore()), Index: catalog.LogIndex(m.GetIndex()),
		Snapshot: catalog.Header{Index: catalog.LogIndex(m.GetSnapshotIndex()), ClusterID: m.GetSnapshotClusterId()},
	}
}
