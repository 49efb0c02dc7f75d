package rpc

import (
	"context"
	"testing"

	"google.golang.org/grpc"

	"github.com/ocistern/ocistern/cluster"
	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/fill"
	peerv1 "github.com/ocistern/ocistern/internal/proto/ocistern/peer/v1"
)

// G9: nodes of different clusters refuse each other, whoever calls; a node without a cluster may only be asked for what
// gets it one.
func TestClustersAreApart(t *testing.T) {
	for _, c := range []struct {
		caller, callee string
		apply, state   errdef.Reason
	}{
		{"one", "one", "", ""},
		{"one", "two", errdef.ClusterMismatch, errdef.ClusterMismatch},
		{"one", "", errdef.NotReady, ""},
		{"", "one", errdef.ClusterMismatch, ""},
		{"", "", errdef.NotReady, ""},
	} {
		address, f := (&node{id: c.callee}).peer(t)
		peers := client(t, c.caller)
		_, applied := peers.Apply(t.Context(), address, fsm.Request{})
		_, _, held := peers.FetchHeld(t.Context(), address, f.Layer.Digest, 0)
		_, state := peers.State(t.Context(), address)
		promise := peers.Promise(t.Context(), address, cluster.Promise{})
		for call, got := range map[string]struct {
			err  error
			want errdef.Reason
		}{"apply": {applied, c.apply}, "held": {held, c.apply}, "state": {state, c.state}, "promise": {promise, c.state}} {
			if errdef.ReasonOf(got.err) != got.want {
				t.Errorf("%s from %q to %q: %v, want reason %q", call, c.caller, c.callee, got.err, got.want)
			}
		}
	}
}

// impostor answers everybody, without looking at who asks.
type impostor struct {
	peerv1.UnimplementedPeerServiceServer
	id identity
}

func (i impostor) Refresh(ctx context.Context, _ *peerv1.RefreshRequest) (*peerv1.RefreshResponse, error) {
	header, _ := i.id.admit(ctx, "") // what it says of the caller is ignored
	return &peerv1.RefreshResponse{Index: 1}, grpc.SetHeader(ctx, header)
}

func (i impostor) FetchContent(
	_ *peerv1.FetchContentRequest, stream grpc.ServerStreamingServer[peerv1.FetchContentResponse],
) error {
	header, _ := i.id.admit(stream.Context(), "") // what it says of the caller is ignored
	if err := stream.SetHeader(header); err != nil {
		return err
	}
	return stream.Send(&peerv1.FetchContentResponse{
		Part: &peerv1.FetchContentResponse_Header_{Header: &peerv1.FetchContentResponse_Header{}},
	})
}

// The caller does not believe a node of another cluster that answers all the same.
func TestAnswerOfAStrangerIsRefused(t *testing.T) {
	server := grpc.NewServer()
	peerv1.RegisterPeerServiceServer(server, impostor{id: identity{clusterID: func() string { return "two" }}})
	address := serve(t, server)
	c := client(t, "one")
	if _, err := c.Refresh(t.Context(), address, fill.Key{}, 0); errdef.ReasonOf(err) != errdef.ClusterMismatch {
		t.Errorf("refresh: %v", err)
	}
	_, err := c.FetchContent(t.Context(), address, fill.ContentKey{}, 0)
	if errdef.ReasonOf(err) != errdef.ClusterMismatch {
		t.Errorf("content: %v", err)
	}
}
