package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"

	"github.com/ocistern/ocistern/cluster"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	snapshotv1 "github.com/ocistern/ocistern/internal/proto/ocistern/snapshot/v1"
)

// keeper keeps the last snapshot it was given. It gives up after limit bytes, when that is not 0.
type keeper struct {
	kept  []byte
	other bool
	limit int64
	err   error
}

func (k *keeper) SaveSnapshot(_ context.Context, to io.Writer, local bool) error {
	if !local {
		return errdef.New(errdef.NoQuorum, "no leader").WithRemedy("wait")
	}
	_, err := to.Write(k.kept)
	return err
}

func (k *keeper) RestoreSnapshot(_ context.Context, from io.Reader, force bool) (cluster.Restored, error) {
	if k.limit > 0 {
		from = io.LimitReader(from, k.limit)
	}
	var err error
	if k.kept, err = io.ReadAll(from); err == nil {
		err = k.err
	}
	k.other = force
	return cluster.Restored{Before: 3, Index: 9, Snapshot: catalog.Header{Index: 2, ClusterID: "c"}}, err
}

// A snapshot much larger than a message crosses to the leader, and back.
func TestSnapshotCrosses(t *testing.T) {
	snapshot := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	k := &keeper{}
	server := NewPeerServer(PeerConfig{Member: &node{id: "one"}, Snapshots: k, Logger: quiet()})
	done, err := client(t, "one").RestoreSnapshot(t.Context(), serve(t, server), bytes.NewReader(snapshot), true)
	if err != nil || done.Before != 3 || done.Index != 9 || done.Snapshot.Index != 2 || done.Snapshot.ClusterID != "c" {
		t.Errorf("restored %+v, %v", done, err)
	}
	if !bytes.Equal(k.kept, snapshot) || !k.other {
		t.Errorf("%d of %d bytes arrived, other cluster %t", len(k.kept), len(snapshot), k.other)
	}

	service := snapshotv1.NewSnapshotServiceClient(dial(t, serve(t, NewRegistryServer(RegistryConfig{
		Snapshots: k, Ready: func() error { return nil }, Logger: quiet(),
	}))))
	stream, err := service.Save(t.Context(), &snapshotv1.SaveRequest{Local: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := drain(t, stream); !bytes.Equal(got, snapshot) {
		t.Errorf("%d of %d bytes came back", len(got), len(snapshot))
	}
	if stream, err = service.Save(t.Context(), &snapshotv1.SaveRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(errdef.FromGRPC(err), errdef.ErrNoQuorum) {
		t.Errorf("without a quorum: %v", err)
	}
}

func drain(t *testing.T, stream grpc.ServerStreamingClient[snapshotv1.SaveResponse]) (got []byte) {
	t.Helper()
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, part.GetChunk()...)
	}
}

// What went wrong at the leader arrives as it is, also when it has not read to the end. A leader that is gone once it has
// all may have restored it.
func TestSnapshotRefused(t *testing.T) {
	snapshot := make([]byte, 4<<20)
	k := &keeper{limit: 1 << 10, err: errdef.New(errdef.ClusterMismatch, "of another cluster").WithRemedy("--force")}
	server := NewPeerServer(PeerConfig{Member: &node{id: "one"}, Snapshots: k, Logger: quiet()})
	address, c := serve(t, server), client(t, "one")
	_, err := c.RestoreSnapshot(t.Context(), address, bytes.NewReader(snapshot), false)
	var typed *errdef.Error
	if !errors.As(err, &typed) || typed.Reason != errdef.ClusterMismatch || typed.Remedy != "--force" {
		t.Errorf("refused early: %v", err)
	}
	if _, err := client(t, "two").RestoreSnapshot(t.Context(), address, bytes.NewReader(nil), false); !errors.Is(err,
		errdef.ErrClusterMismatch) {
		t.Errorf("from another cluster: %v", err)
	}
	vanish := &vanishing{}
	gone := NewPeerServer(PeerConfig{Member: &node{id: "one"}, Snapshots: vanish, Logger: quiet()})
	vanish.stop = gone.Stop
	_, err = c.RestoreSnapshot(t.Context(), serve(t, gone), bytes.NewReader(snapshot), false)
	if reason := errdef.ReasonOf(err); reason != errdef.OutcomeUnknown {
		t.Errorf("gone once all was sent: %v", err)
	}
}

// vanishing is a leader whose connection breaks once it has read all.
type vanishing struct {
	keeper
	stop func()
}

func (v *vanishing) RestoreSnapshot(ctx context.Context, from io.Reader, _ bool) (cluster.Restored, error) {
	_, err := io.Copy(io.Discard, from)
	v.stop()
	<-ctx.Done()
	return cluster.Restored{}, err
}
