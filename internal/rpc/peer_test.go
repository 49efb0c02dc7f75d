package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ocistern/ocistern/cluster"
	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/fill"
	peerv1 "github.com/ocistern/ocistern/internal/proto/ocistern/peer/v1"
	"github.com/ocistern/ocistern/internal/registry/registrytest"
)

// node is the other side: it records what it was asked and answers alike.
type node struct {
	id                 string
	promised           []cluster.Promise
	witness            cluster.Witness
	err                error
	apply              func(context.Context, fsm.Request) (catalog.LogIndex, error)
	operate            func(context.Context) error
	submitted          fsm.Request
	retired            catalog.NodeID
	refreshed, fetched any
	content            io.ReadCloser
	desc               ocispec.Descriptor
}

func (n *node) ClusterID() string { return n.id }

func (n *node) ApplyAllLocal(ctx context.Context, requests []fsm.Request) []catalog.Result {
	results := make([]catalog.Result, len(requests))
	for i, request := range requests {
		if n.apply != nil {
			results[i].Index, results[i].Err = n.apply(ctx, request)
			continue
		}
		n.submitted = request
		results[i] = catalog.Result{Index: catalog.LogIndex(len(request.Command)), Err: n.err}
	}
	return results
}

func (n *node) Promise(_ context.Context, promise cluster.Promise) error {
	n.promised = append(n.promised, promise)
	return n.err
}

func (n *node) Release(_ context.Context, promise cluster.Promise) error {
	n.promised = append(n.promised, promise)
	return n.err
}

func (n *node) State() cluster.NodeState {
	return cluster.NodeState{ID: "b", ClusterID: n.id, Empty: true, Retired: true, Term: 3, Applied: 7, Last: 9, FeatureLevel: 2}
}

func (n *node) Retire(_ context.Context, node catalog.NodeID) error {
	n.retired = node
	return n.err
}

func (n *node) SurveyLocal(context.Context) ([]cluster.Member, error) { return n.members(), n.err }

func (n *node) OperateLocal(ctx context.Context, operation cluster.Operation) (catalog.NodeID, error) {
	if n.operate != nil {
		return "", n.operate(ctx)
	}
	return catalog.NodeID(fmt.Sprint(operation)), n.err
}

func (n *node) members() []cluster.Member {
	return []cluster.Member{
		{ID: "a", Name: "n1", Role: cluster.RoleVoter, Leader: true, State: cluster.StateAlive, Applied: 9, Level: 2},
		{ID: "b", Role: cluster.RoleNonvoter, State: cluster.StateDead, Silence: time.Minute,
			Addresses: cluster.Addresses{Raft: "r:1", GRPC: "g:1", Registry: "h:1"}},
	}
}

func (n *node) HashAt(_ context.Context, node catalog.NodeID, index catalog.LogIndex) (cluster.Hash, error) {
	return cluster.Hash{node[0], byte(index)}, n.err
}

func (n *node) ReadIndexLocal(_ context.Context, witness cluster.Witness) (catalog.LogIndex, error) {
	n.witness = witness
	return 11, n.err
}

func (n *node) Refresh(_ context.Context, key fill.Key, seen catalog.LogIndex) (catalog.LogIndex, error) {
	n.refreshed = key
	return seen + 1, n.err
}

func (n *node) Fetch(_ context.Context, key fill.ContentKey, offset int64) (*fill.Stream, error) {
	n.fetched = key
	if n.err != nil {
		return nil, n.err
	}
	if _, err := io.CopyN(io.Discard, n.content, offset); err != nil {
		return nil, err
	}
	return &fill.Stream{ReadCloser: n.content, Descriptor: n.desc}, nil
}

func (n *node) peer(t *testing.T) (address string, f *registrytest.Fixture) {
	t.Helper()
	f = registrytest.New(t)
	return serve(t, NewPeerServer(PeerConfig{Member: n, Founder: n, Leader: n, Filler: n, Store: f.Store, Logger: quiet()})), f
}

func client(t *testing.T, clusterID string) *PeerClient {
	t.Helper()
	c := NewPeerClient(func() string { return clusterID })
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestPeerCallsCross(t *testing.T) {
	n := &node{id: "one"}
	address, f := n.peer(t)
	c, ctx := client(t, "one"), t.Context()
	big := make([]byte, 8<<20)
	for _, request := range []fsm.Request{
		{Command: big}, {Command: []byte("x"), Request: catalog.Request{ID: catalog.RequestID{1, 15: 2}, Since: 1 << 40}},
	} {
		index, err := c.Apply(ctx, address, request)
		if err != nil || int(index) != len(request.Command) || !reflect.DeepEqual(n.submitted, request) {
			t.Errorf("apply: %d, %v; arrived as %v since %d", index, err, n.submitted.ID, n.submitted.Since)
		}
	}
	if _, err := parseSubmission(&peerv1.ApplyRequest_Submission{RequestId: []byte{1}}); errdef.ReasonOf(err) != errdef.CommandUnknown {
		t.Errorf("a short request id: %v", err)
	}
	witness := cluster.Witness{Node: "a", Term: 5}
	if index, err := c.ReadIndex(ctx, address, witness); err != nil || index != 11 || n.witness != witness {
		t.Errorf("read index: %d, %v, for %v", index, err, n.witness)
	}
	if hash, err := c.HashAt(ctx, address, "b", 12); err != nil || hash != (cluster.Hash{'b', 12}) {
		t.Errorf("hash: %x, %v", hash, err)
	}
	if err := c.Retire(ctx, address, "b"); err != nil || n.retired != "b" {
		t.Errorf("retire: %s, %v", n.retired, err)
	}
	if members, err := c.Survey(ctx, address); err != nil || !slices.Equal(members, n.members()) {
		t.Errorf("survey: %+v, %v", members, err)
	}
	operation := cluster.Operation{Kind: cluster.OperationReplace, Node: "a", By: "b"}
	if node, err := c.Operate(ctx, address, operation); err != nil || string(node) != fmt.Sprint(operation) {
		t.Errorf("operate: %s, %v", node, err)
	}
	promise := cluster.Promise{
		ClusterID: "one", Proposer: "a",
		Candidates: []cluster.Candidate{{ID: "a", RaftAddress: "x:1"}, {ID: "b", RaftAddress: "y:1"}},
	}
	if err := c.Promise(ctx, address, promise); err != nil || !reflect.DeepEqual(n.promised[0], promise) {
		t.Errorf("promise: %+v, %v", n.promised, err)
	}
	released := cluster.Promise{ClusterID: "one", Proposer: "a"}
	if err := c.Release(ctx, address, promise); err != nil || !reflect.DeepEqual(n.promised[1], released) {
		t.Errorf("release: %+v, %v", n.promised, err)
	}
	if state, err := c.State(ctx, address); err != nil || state != n.State() {
		t.Errorf("state: %+v, %v", state, err)
	}
	for _, key := range []fill.Key{
		{Tenant: "t", Repository: "up.test/a", Kind: fill.KindTag, Reference: "v1"},
		{Tenant: "t", Repository: "up.test/a", Kind: fill.KindReferrers, Reference: f.Image.Digest.String()},
	} {
		if index, err := c.Refresh(ctx, address, key, 41); err != nil || index != 42 || n.refreshed != key {
			t.Errorf("refresh: %d of %+v, %v", index, n.refreshed, err)
		}
	}
}

func TestContentCrosses(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), chunkBytes/4)
	n := &node{id: "one", desc: ocispec.Descriptor{
		MediaType: "a/b", Digest: digest.FromBytes(body), Size: int64(len(body)),
	}}
	address, f := n.peer(t)
	c, ctx := client(t, "one"), t.Context()
	for _, offset := range []int64{0, 7, int64(len(body))} {
		n.content = io.NopCloser(bytes.NewReader(body))
		key := fill.ContentKey{Tenant: "t", Repository: "up.test/a", Kind: fill.ContentBlob, Digest: n.desc.Digest}
		stream, err := c.FetchContent(ctx, address, key, offset)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(stream)
		if err != nil || !bytes.Equal(got, body[offset:]) || n.fetched != key {
			t.Errorf("from %d: %d bytes, %v, asked for %+v", offset, len(got), err, n.fetched)
		}
		if !reflect.DeepEqual(stream.Descriptor, n.desc) {
			t.Errorf("descriptor %+v, want %+v", stream.Descriptor, n.desc)
		}
		if err := stream.Close(); err != nil {
			t.Error(err)
		}
	}
	reader, size, err := c.FetchHeld(ctx, address, f.Layer.Digest, 4)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(reader); err != nil || string(got) != string(f.Layer.Bytes[4:]) || size != f.Layer.Size {
		t.Errorf("held: %q of %d, %v", got, size, err)
	}
	if _, _, err := c.FetchHeld(ctx, address, f.Lost.Digest, 0); errdef.ReasonOf(err) != errdef.NotFound {
		t.Errorf("content that is not held: %v", err)
	}
	_, _, err = c.FetchHeld(ctx, address, f.Layer.Digest, f.Layer.Size+1)
	if errdef.ReasonOf(err) != errdef.RangeInvalid {
		t.Errorf("held content past its end: %v", err)
	}
}

// Closing a stream ends the call on the other side too, which closes what it was reading.
func TestCloseEndsTheCall(t *testing.T) {
	reader, writer := io.Pipe()
	n := &node{id: "one", content: reader, desc: ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1 << 30}}
	address, _ := n.peer(t)
	key := fill.ContentKey{Tenant: "t", Repository: "up.test/a", Kind: fill.ContentBlob, Digest: n.desc.Digest}
	stream, err := client(t, "one").FetchContent(t.Context(), address, key, 0)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := io.Copy(writer, endless{})
		ended <- err
	}()
	if _, err := io.ReadFull(stream, make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the other side stopped with %v", err)
	}
	if _, err := io.Copy(io.Discard, stream); errdef.ReasonOf(err) != errdef.Canceled {
		t.Errorf("reading a closed stream: %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestEveryReasonCrossesBetweenPeers(t *testing.T) {
	n := &node{id: "one"}
	address, f := n.peer(t)
	c := client(t, "one")
	key := fill.Key{Tenant: "t", Repository: "up.test/a", Kind: fill.KindTag, Reference: "v1"}
	contentKey := fill.ContentKey{Tenant: "t", Repository: "up.test/a", Kind: fill.ContentBlob, Digest: f.Layer.Digest}
	for _, reason := range errdef.Reasons() {
		n.err = errdef.New(reason, "planted")
		_, applied := c.Apply(t.Context(), address, fsm.Request{})
		_, operated := c.Operate(t.Context(), address, cluster.Operation{})
		_, refreshed := c.Refresh(t.Context(), address, key, 0)
		_, fetched := c.FetchContent(t.Context(), address, contentKey, 0)
		for _, err := range []error{refreshed, fetched, c.Promise(t.Context(), address, cluster.Promise{})} {
			if errdef.ReasonOf(err) != reason {
				t.Errorf("%s came back as %v (%s)", reason, err, errdef.ReasonOf(err))
			}
		}
		want := reason
		if reason == errdef.Internal { // it may have gone wrong after the change
			want = errdef.OutcomeUnknown
		}
		for _, err := range []error{applied, operated} {
			if errdef.ReasonOf(err) != want {
				t.Errorf("%s came back as %v (%s) from a change", reason, err, errdef.ReasonOf(err))
			}
		}
	}
}

// A dead address fails at once, as UNAVAILABLE: nothing was delivered, and another node can be asked.
func TestUnreachablePeer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	c := client(t, "one")
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, applied := c.Apply(ctx, address, fsm.Request{})
		_, refreshed := c.Refresh(ctx, address, fill.Key{}, 0)
		_, fetched := c.FetchContent(ctx, address, fill.ContentKey{}, 0)
		for _, err := range []error{applied, refreshed, fetched} {
			if errdef.ReasonOf(err) != errdef.Unavailable || !strings.Contains(err.Error(), address) {
				t.Errorf("an address where nobody listens: %v", err)
			}
		}
	}
	peers := NewNodePeers(c, func(catalog.NodeID) (string, bool) { return "", false })
	if _, err := peers.Refresh(t.Context(), "gone", fill.Key{}, 0); errdef.ReasonOf(err) != errdef.Unavailable {
		t.Errorf("a node that is no member: %v", err)
	}
}

// Once a command or an order may have been delivered, a lost answer is OUTCOME_UNKNOWN, never "unavailable, submit it again".
func TestLostAnswerOfAChange(t *testing.T) {
	taken := make(chan struct{})
	take := func(ctx context.Context) error {
		taken <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	n := &node{id: "one", operate: take, apply: func(ctx context.Context, _ fsm.Request) (catalog.LogIndex, error) {
		return 0, take(ctx)
	}}
	server := NewPeerServer(PeerConfig{Member: n, Founder: n, Leader: n, Filler: n, Store: registrytest.New(t).Store, Logger: quiet()})
	address, peers := serve(t, server), client(t, "one")
	for _, c := range []struct {
		name string
		lose func(cancel context.CancelFunc)
	}{
		{"caller gave up", func(cancel context.CancelFunc) { cancel() }},
		{"node died", func(context.CancelFunc) { server.Stop() }},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := peers.Apply(ctx, address, fsm.Request{Command: []byte("x")})
			failed <- err
		}()
		go func() {
			_, err := peers.Operate(ctx, address, cluster.Operation{})
			failed <- err
		}()
		<-taken
		<-taken
		c.lose(cancel)
		for range 2 {
			if err := <-failed; errdef.ReasonOf(err) != errdef.OutcomeUnknown {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		cancel()
	}
}

// What gRPC says by itself proves that nothing was submitted only where the call was not known. RESOURCE_EXHAUSTED may be
// about an answer that was too large.
func TestChangeError(t *testing.T) {
	for code, want := range map[codes.Code]errdef.Reason{
		codes.ResourceExhausted: errdef.OutcomeUnknown, codes.Internal: errdef.OutcomeUnknown,
		codes.Unknown: errdef.OutcomeUnknown, codes.Unavailable: errdef.OutcomeUnknown, codes.Unimplemented: errdef.Internal,
	} {
		if got := errdef.ReasonOf(changeError("there", status.Error(code, "planted"), true)); got != want {
			t.Errorf("%s of a call that was sent is %s, want %s", code, got, want)
		}
	}
	if got := errdef.ReasonOf(changeError("there", status.Error(codes.Unavailable, "planted"), false)); got != errdef.Unavailable {
		t.Errorf("a call that was not sent is %s", got)
	}
	c := client(t, "one")
	_, err := c.Apply(t.Context(), "127.0.0.1:1", fsm.Request{Command: make([]byte, MaxMessageBytes)})
	if errdef.ReasonOf(err) != errdef.Internal {
		t.Errorf("a command that is too large to be sent: %v", err)
	}
}

// What is submitted at the same time shares calls, and each gets its own result.
func TestAppliesAreShared(t *testing.T) {
	begin, calls := make(chan struct{}), new(atomic.Int64)
	n := &node{id: "one", apply: func(_ context.Context, request fsm.Request) (catalog.LogIndex, error) {
		<-begin
		if len(request.Command)%2 == 1 {
			return 0, errdef.New(errdef.TagConflict, "planted %d", len(request.Command)).WithRemedy("try %d", len(request.Command)+1)
		}
		return catalog.LogIndex(len(request.Command)), nil
	}}
	server := NewPeerServer(PeerConfig{
		Member: n, Founder: n, Leader: countingLeader{n, calls}, Filler: n, Store: registrytest.New(t).Store, Logger: quiet(),
	})
	address, peers := serve(t, server), client(t, "one")
	const callers = 64
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			index, err := peers.Apply(t.Context(), address, fsm.Request{Command: make([]byte, i)})
			switch {
			case i%2 == 0 && (err != nil || int(index) != i):
				t.Errorf("request %d got %d, %v", i, index, err)
			case i%2 == 1 && (errdef.ReasonOf(err) != errdef.TagConflict || !strings.Contains(err.Error(), fmt.Sprintf("planted %d (try %d)", i, i+1))):
				t.Errorf("request %d got %d, %v", i, index, err)
			}
		})
	}
	close(begin)
	all.Wait()
	if made := calls.Load(); made == 0 || made > callers/2 {
		t.Errorf("%d requests were submitted with %d calls", callers, made)
	}
}

// countingLeader counts calls, not requests.
type countingLeader struct {
	*node
	calls *atomic.Int64
}

func (c countingLeader) ApplyAllLocal(ctx context.Context, requests []fsm.Request) []catalog.Result {
	c.calls.Add(1)
	return c.node.ApplyAllLocal(ctx, requests)
}

// Connections to addresses that are gone do not pile up.
func TestPoolForgetsTheDead(t *testing.T) {
	p := newPool(identity{clusterID: func() string { return "" }})
	for i := range 3 * pooledConnections {
		if _, err := p.get(fmt.Sprintf("10.0.0.1:%d", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.connections) > pooledConnections {
		t.Errorf("%d connections", len(p.connections))
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
	if _, err := p.get("10.0.0.1:1"); errdef.ReasonOf(err) != errdef.Unavailable {
		t.Errorf("a closed pool: %v", err)
	}
}

// What a peer sends is refused with a reason or read as it was meant.
func FuzzParsePeerRequests(f *testing.F) {
	f.Add("t", "up.test/a", "v1", int32(1))
	f.Add("t", "up.test/a", digest.FromString("x").String(), int32(2))
	f.Fuzz(func(t *testing.T, tenant, repository, ref string, kind int32) {
		key, err := parseRefresh(&peerv1.RefreshRequest{
			Tenant: tenant, Repository: repository, Kind: peerv1.RefreshKind(kind), Reference: ref,
		})
		if err == nil {
			again, err := parseRefresh(refreshMessage(key, 1))
			if err != nil || again != key || key.Reference != ref {
				t.Fatalf("%+v became %+v, %v", key, again, err)
			}
		} else if errdef.ReasonOf(err) == errdef.Internal {
			t.Fatalf("untyped error %v", err)
		}
		content, err := parseContent(&peerv1.FetchContentRequest{
			Tenant: tenant, Repository: repository, Kind: peerv1.ContentKind(kind), Digest: ref,
		})
		if err == nil {
			again, err := parseContent(contentMessage(content, 1))
			if err != nil || again != content || content.Digest.String() != ref {
				t.Fatalf("%+v became %+v, %v", content, again, err)
			}
		} else if errdef.ReasonOf(err) == errdef.Internal {
			t.Fatalf("untyped error %v", err)
		}
	})
}
