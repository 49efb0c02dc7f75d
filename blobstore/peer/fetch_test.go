package peer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/blobstore"
	"github.com/ocistern/ocistern/blobstore/peer"
	"github.com/ocistern/ocistern/blobstore/storetest"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

func TestFetch(t *testing.T) {
	refused := errdef.New(errdef.Unavailable, "connection refused")
	absent := errdef.New(errdef.NotFound, "not here")
	for _, c := range []struct {
		name   string
		faults [3]fault // of nodes a, b and c
		asked  []request
		reason errdef.Reason
	}{
		{name: "first holder has it", asked: []request{{"a", 0}}},
		{name: "first holder is away", faults: [3]fault{{refuses: refused}}, asked: []request{{"a", 0}, {"b", 0}}},
		{name: "first holder lost it", faults: [3]fault{{refuses: absent}}, asked: []request{{"a", 0}, {"b", 0}}},
		{
			name: "two die on the way", faults: [3]fault{{diesAfter: 1000}, {diesAfter: 500}},
			asked: []request{{"a", 0}, {"b", 1000}, {"c", 1500}},
		},
		{name: "one falls silent", faults: [3]fault{{diesAfter: 1000, silent: true}}, asked: []request{{"a", 0}, {"b", 1000}}},
		{name: "one never begins", faults: [3]fault{{silent: true}}, asked: []request{{"a", 0}, {"b", 0}}},
		{name: "slow is not silent", faults: [3]fault{{slow: true}}, asked: []request{{"a", 0}}},
		{name: "stream ends early", faults: [3]fault{{endsBefore: 100}}, asked: []request{{"a", 0}, {"b", 2900}}},
		{name: "wrong bytes", faults: [3]fault{{wrong: true}}, asked: []request{{"a", 0}, {"b", 0}}},
		{name: "wrong size", faults: [3]fault{{wrongSize: 10}}, asked: []request{{"a", 0}, {"b", 0}}},
		{
			name: "wrong bytes, then it dies", faults: [3]fault{{wrong: true, diesAfter: 1000}},
			asked: []request{{"a", 0}, {"b", 1000}, {"b", 0}},
		},
		{
			name: "right bytes, then wrong ones", faults: [3]fault{{diesAfter: 1000}, {wrong: true}},
			asked: []request{{"a", 0}, {"b", 1000}, {"b", 0}, {"c", 0}},
		},
		{name: "all fail", faults: [3]fault{{refuses: refused}, {wrong: true}, {diesAfter: 1}}, reason: errdef.Unavailable},
		{name: "all lie", faults: [3]fault{{wrong: true}, {wrong: true}, {wrong: true}}, reason: errdef.Unavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			data, holders := storetest.Bytes("fetch", 3000), []catalog.NodeID{"a", "b", "c"}
			others := newCluster(t, holders...)
			for i, holder := range holders {
				storetest.Put(t, others.stores[holder], storetest.Describe(digest.SHA256, data), data)
				others.misbehave(holder, c.faults[i])
			}
			store := openStore(t, t.TempDir())
			synctest.Test(t, func(t *testing.T) {
				in, err := store.Begin(storetest.Describe(digest.SHA256, data))
				if err != nil {
					t.Fatal(err)
				}
				defer in.Abort(nil)
				err = peer.Fetch(t.Context(), others, holders, in)
				if errdef.ReasonOf(err) != c.reason {
					t.Fatalf("got %v, want %q", err, c.reason)
				}
				if err != nil {
					if in.Err() != nil {
						t.Errorf("the ingest ended with %v: no other source can go on", in.Err())
					}
					return
				}
				if !slices.Equal(others.requests(), c.asked) {
					t.Errorf("asked %v, want %v", others.requests(), c.asked)
				}
				if err := in.Persist(); err != nil {
					t.Fatal(err)
				}
				reader := in.Reader(0)
				defer reader.Close()
				if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, data) {
					t.Errorf("got %d bytes, %v", len(got), err)
				}
			})
		})
	}
}

// An ingest that does not know the size takes it from the holder, and believes the digest only.
func TestFetchOfUnknownSize(t *testing.T) {
	data := storetest.Bytes("unknown", blobstore.SmallBytes+1)
	others := newCluster(t, "a", "b")
	others.misbehave("a", fault{wrongSize: -5})
	for _, store := range others.stores {
		storetest.Put(t, store, storetest.Describe(digest.SHA256, data), data)
	}
	want := storetest.Describe(digest.SHA256, data)
	want.Size = -1
	in, err := openStore(t, t.TempDir()).Begin(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(peer.Fetch(t.Context(), others, []catalog.NodeID{"a", "b"}, in), in.Persist()); err != nil {
		t.Fatal(err)
	}
	if in.Descriptor().Size != int64(len(data)) {
		t.Errorf("has %d bytes", in.Descriptor().Size)
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	data := storetest.Bytes("deadline", 3000)
	others := newCluster(t, "a", "b")
	for node, store := range others.stores {
		storetest.Put(t, store, storetest.Describe(digest.SHA256, data), data)
		others.misbehave(node, fault{silent: true})
	}
	store := openStore(t, t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		in, err := store.Begin(storetest.Describe(digest.SHA256, data))
		if err != nil {
			t.Fatal(err)
		}
		defer in.Abort(nil)
		if err := peer.Fetch(ctx, others, []catalog.NodeID{"a", "b"}, in); errdef.ReasonOf(err) != errdef.Deadline {
			t.Errorf("got %v, want %s", err, errdef.Deadline)
		}
		if len(others.requests()) != 1 {
			t.Errorf("asked %v although the time was over", others.requests())
		}
	})
}

func TestFetchWithoutHoldersOrIngest(t *testing.T) {
	data := storetest.Bytes("none", 10)
	in, err := openStore(t, t.TempDir()).Begin(storetest.Describe(digest.SHA256, data))
	if err != nil {
		t.Fatal(err)
	}
	if err := peer.Fetch(t.Context(), newCluster(t), nil, in); errdef.ReasonOf(err) != errdef.NotFound {
		t.Errorf("without holders: %v", err)
	}
	others := newCluster(t, "a", "b")
	for _, store := range others.stores {
		storetest.Put(t, store, storetest.Describe(digest.SHA256, data), data)
	}
	in.Abort(errdef.New(errdef.StorageFull, "no space"))
	if err := peer.Fetch(t.Context(), others, []catalog.NodeID{"a", "b"}, in); errdef.ReasonOf(err) != errdef.StorageFull {
		t.Errorf("with an ingest that has failed: %v", err)
	}
	if len(others.requests()) > 1 {
		t.Errorf("asked %v although the ingest has failed", others.requests())
	}
}

// When all bytes have arrived and only the end was not seen, nobody is asked again.
func TestFetchOfWhatIsComplete(t *testing.T) {
	data := storetest.Bytes("complete", 3000)
	others := newCluster(t, "a")
	in, err := openStore(t, t.TempDir()).Begin(storetest.Describe(digest.SHA256, data))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(peer.Fetch(t.Context(), others, []catalog.NodeID{"a"}, in), in.Persist()); err != nil || len(others.requests()) > 0 {
		t.Errorf("asked %v, %v", others.requests(), err)
	}
}
