package cluster

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// testIdentity makes an identity on disk, without a Raft store.
func testIdentity(t *testing.T, id catalog.NodeID, clusterID string) *identity {
	t.Helper()
	i := &identity{path: filepath.Join(t.TempDir(), "node.json")}
	must(t, i.write(record{ID: id, ClusterID: clusterID}))
	return i
}

func testTransport(t *testing.T, id *identity) *transport {
	t.Helper()
	cfg := Config{
		Listen: Addresses{Raft: "127.0.0.1:0"}, Timings: Timings{}.complete(), Environment: Environment{Network: machine{}},
	}
	opened, err := openTransport(&cfg, id, slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { must(t, opened.Close()) })
	return opened
}

// heartbeat is what raft's network transport takes for one: an append without entries, previous entry and commit index.
func heartbeat() *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("a"), Addr: []byte("at-a")},
		Term:      1,
	}
}

// Heartbeats take the queue (raft issue 695). The planted bug, raft's own transport without our wrapper, shows that
// this test would notice the fast path.
func TestHeartbeatsTakeTheQueue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		receiver func(*transport) raft.Transport
		queued   bool
	}{
		{"wrapped", func(tr *transport) raft.Transport { return tr }, true},
		{"planted bug", func(tr *transport) raft.Transport { return tr.NetworkTransport }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sender := testTransport(t, testIdentity(t, "a", "x"))
			receiver := testTransport(t, testIdentity(t, "b", "x"))
			took := make(chan bool, 1)
			c.receiver(receiver).SetHeartbeatHandler(func(rpc raft.RPC) {
				took <- false
				rpc.Respond(&raft.AppendEntriesResponse{}, nil)
			})
			ended := t.Context().Done()
			go func() {
				select {
				case rpc := <-receiver.NetworkTransport.Consumer():
					took <- true
					rpc.Respond(&raft.AppendEntriesResponse{}, nil)
				case <-ended:
				}
			}()
			must(t, sender.AppendEntries("b", receiver.LocalAddr(), heartbeat(), &raft.AppendEntriesResponse{}))
			if got := <-took; got != c.queued {
				t.Errorf("the heartbeat took the queue: %t, want %t", got, c.queued)
			}
		})
	}
}

// Every kind of RPC names its target, pre-votes included; each is refused by another node at the same address, and by a
// node of another cluster.
func TestEveryCallNamesItsTarget(t *testing.T) {
	t.Parallel()
	calls := map[string]func(tr *transport, id raft.ServerID, at raft.ServerAddress) error{
		"AppendEntries": func(tr *transport, id raft.ServerID, at raft.ServerAddress) error {
			return tr.AppendEntries(id, at, heartbeat(), &raft.AppendEntriesResponse{})
		},
		"AppendEntriesPipeline": func(tr *transport, id raft.ServerID, at raft.ServerAddress) error {
			pipeline, err := tr.AppendEntriesPipeline(id, at)
			if err != nil {
				return err
			}
			return pipeline.Close()
		},
		"RequestVote": func(tr *transport, id raft.ServerID, at raft.ServerAddress) error {
			return tr.RequestVote(id, at, &raft.RequestVoteRequest{}, &raft.RequestVoteResponse{})
		},
		"RequestPreVote": func(tr *transport, id raft.ServerID, at raft.ServerAddress) error {
			return tr.RequestPreVote(id, at, &raft.RequestPreVoteRequest{}, &raft.RequestPreVoteResponse{})
		},
		"InstallSnapshot": func(tr *transport, id raft.ServerID, at raft.ServerAddress) error {
			return tr.InstallSnapshot(id, at, &raft.InstallSnapshotRequest{}, &raft.InstallSnapshotResponse{},
				bytes.NewReader(nil))
		},
		"TimeoutNow": func(tr *transport, id raft.ServerID, at raft.ServerAddress) error {
			return tr.TimeoutNow(id, at, &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{})
		},
	}
	receiver := testTransport(t, testIdentity(t, "b", "x"))
	ended := t.Context().Done()
	go func() {
		for {
			select {
			case rpc := <-receiver.NetworkTransport.Consumer():
				rpc.Respond(struct{}{}, nil)
			case <-ended:
				return
			}
		}
	}()
	friend, stranger := testTransport(t, testIdentity(t, "a", "x")), testTransport(t, testIdentity(t, "a", "y"))
	for name, call := range calls {
		if err := call(friend, "b", receiver.LocalAddr()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := call(friend, "wiped", receiver.LocalAddr()); errdef.ReasonOf(err) != errdef.ClusterMismatch {
			t.Errorf("%s in the place of another node: got %v, want %s", name, err, errdef.ClusterMismatch)
		}
		if err := call(stranger, "b", receiver.LocalAddr()); errdef.ReasonOf(err) != errdef.ClusterMismatch {
			t.Errorf("%s of another cluster: got %v, want %s", name, err, errdef.ClusterMismatch)
		}
	}
}

func TestAdmit(t *testing.T) {
	empty, member := record{ID: "b"}, record{ID: "b", ClusterID: "x"}
	promised := record{ID: "b", Promise: &Promise{ClusterID: "x", Proposer: "p"}}
	for _, c := range []struct {
		name   string
		before record
		hello  hello
		want   answer
		after  record
	}{
		{"member", member, hello{"x", "b", "a"}, answer{admitted, "x", "b"}, member},
		{"empty node joins", empty, hello{"x", "b", "a"}, answer{admitted, "x", "b"}, member},
		{"promised node joins", promised, hello{"x", "b", "a"}, answer{admitted, "x", "b"}, member},
		{"promised to another", promised, hello{"y", "b", "a"}, answer{otherCluster, "x", "b"}, promised},
		{"member of another", member, hello{"y", "b", "a"}, answer{otherCluster, "x", "b"}, member},
		{"wiped node is not who was meant", empty, hello{"x", "old", "a"}, answer{otherNode, "", "b"}, empty},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := testIdentity(t, "b", "")
			must(t, id.write(c.before))
			got, err := id.admit(c.hello)
			if got != c.want || (err == nil) != (got.Verdict == admitted) {
				t.Errorf("got %+v, %v; want %+v", got, err, c.want)
			}
			onDisk, err := readRecord(id.path)
			must(t, err)
			if onDisk.ID != c.after.ID || onDisk.ClusterID != c.after.ClusterID || onDisk.told() != c.after.told() {
				t.Errorf("on disk is %+v, want %+v", onDisk, c.after)
			}
		})
	}
}

// A node that cannot make its membership durable admits nobody.
func TestAdmitNeedsTheDisk(t *testing.T) {
	id := testIdentity(t, "b", "")
	id.path = filepath.Join(t.TempDir(), "missing", "node.json")
	got, err := id.admit(hello{"x", "b", "a"})
	if got.Verdict != cannotAdmit || errdef.ReasonOf(err) != errdef.StorageFailed {
		t.Errorf("got %+v, %v", got, err)
	}
	if got := id.current().told(); got != "" {
		t.Errorf("the node says it belongs to %q", got)
	}
}

// What is no hello is hung up on, and keeps nobody else waiting; the end of the stream ends its connections.
func TestStreamOutlivesGarbage(t *testing.T) {
	t.Parallel()
	receiver := testTransport(t, testIdentity(t, "b", "x"))
	silent, err := net.Dial("tcp", string(receiver.LocalAddr()))
	must(t, err)
	defer silent.Close()
	garbage, err := net.Dial("tcp", string(receiver.LocalAddr()))
	must(t, err)
	defer garbage.Close()
	_, err = garbage.Write([]byte("GET / HTTP/1.1\r\nHost: ocistern\r\n\r\n"))
	must(t, err)
	must(t, garbage.SetReadDeadline(time.Now().Add(patience)))
	if _, err := garbage.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the node answered garbage: %v", err)
	}
	sender := testTransport(t, testIdentity(t, "a", "x"))
	reply, err := sender.stream.occupant("b", string(receiver.LocalAddr()))
	if err != nil || reply.Verdict != admitted {
		t.Errorf("got %+v, %v", reply, err)
	}
	must(t, receiver.Close())
	must(t, silent.SetReadDeadline(time.Now().Add(patience)))
	if _, err := silent.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection outlives the node: %v", err)
	}
}

func TestHandshakeRoundTrip(t *testing.T) {
	var wire bytes.Buffer
	wantHello, wantAnswer := hello{"x", "b", "a"}, answer{otherNode, "", "b"}
	must(t, wantHello.write(&wire))
	must(t, wantAnswer.write(&wire))
	wire.WriteString("raft's own bytes")
	if got, err := readHello(&wire); err != nil || got != wantHello {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := readAnswer(&wire); err != nil || got != wantAnswer {
		t.Errorf("got %+v, %v", got, err)
	}
	if got := wire.String(); got != "raft's own bytes" {
		t.Errorf("the handshake read on into %q", got)
	}
	long := hello{Cluster: string(make([]byte, maxID+1)), Target: "b", Source: "a"}
	if err := long.write(io.Discard); err == nil {
		t.Error("a cluster id that is too long was written")
	}
}

func FuzzHandshake(f *testing.F) {
	var wire bytes.Buffer
	if err := (hello{"x", "b", "a"}).write(&wire); err != nil {
		f.Fatal(err)
	}
	f.Add(wire.Bytes())
	wire.Reset()
	if err := (answer{otherCluster, "y", "b"}).write(&wire); err != nil {
		f.Fatal(err)
	}
	f.Add(wire.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := readHello(bytes.NewReader(data)); err == nil {
			var again bytes.Buffer
			if err := h.write(&again); err != nil || !bytes.HasPrefix(data, again.Bytes()) {
				t.Errorf("%+v was read from %q and is written as %q, %v", h, data, again.Bytes(), err)
			}
		}
		if a, err := readAnswer(bytes.NewReader(data)); err == nil {
			var again bytes.Buffer
			if err := a.write(&again); err != nil || !bytes.HasPrefix(data, again.Bytes()) {
				t.Errorf("%+v was read from %q and is written as %q, %v", a, data, again.Bytes(), err)
			}
		}
	})
}
