package cluster

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"

	"github.com/ocistern/ocistern/internal/errdef"
)

func TestMetadata(t *testing.T) {
	host := "ocistern-0.ocistern-headless.a-namespace-with-a-long-name.svc.cluster.local"
	m := metadata{
		Name: strings.Repeat("n", maxName), Cluster: newID(), Promised: true, Leaving: true,
		Raft: host + ":5040", Peer: host + ":5030", GRPC: host + ":5010", Registry: "registry.example.com:443",
	}
	must(t, m.checkSize())
	encoded, err := m.encode()
	must(t, err)
	if len(encoded) > memberlist.MetaMaxSize {
		t.Errorf("%d bytes", len(encoded))
	}
	if got, err := decodeMetadata(encoded); err != nil || got != m {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, m)
	}
	ipv6 := metadata{Raft: "[::1]:5040", Peer: "[::1]:5030"}
	encoded, err = ipv6.encode()
	must(t, err)
	if got, err := decodeMetadata(encoded); err != nil || got != ipv6 {
		t.Errorf("got %+v, %v from %s", got, err, encoded)
	}
	for width := 1; m.checkSize() == nil; width++ { // whatever is told later fits, too
		m.Peer = strings.Repeat("p", width) + ":1"
		if later := (metadata{
			Name: m.Name, Cluster: newID(), Formerly: newID(), Disputes: true, Leaving: true, Retired: true,
			Raft: m.Raft, Peer: m.Peer, GRPC: m.GRPC, Registry: m.Registry,
		}); m.checkSize() == nil {
			_, err := later.encode()
			must(t, err)
		}
	}
	m.Peer = strings.Repeat("p", 400) + ":1"
	if err := m.checkSize(); errdef.ReasonOf(err) != errdef.ConfigInvalid {
		t.Errorf("metadata that does not fit: got %v", err)
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`{"n":"n1","c":"x","r":"h:1","e":":2","g":":3","h":"g:4"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decodeMetadata(data)
		if err != nil || len(data) > memberlist.MetaMaxSize {
			return
		}
		encoded, err := m.encode()
		if err != nil {
			return // longer than it came, for its hosts or for JSON's escapes
		}
		if got, err := decodeMetadata(encoded); err != nil || got != m {
			t.Errorf("%+v comes back as %+v, %v", m, got, err)
		}
	})
}

// A node too big for gossip is refused at the start instead of panicking later.
func TestOpenRefusesLongAddresses(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	n := f.add(1, freeAddress())
	n.config.Advertise.Registry = strings.Repeat("r", 500) + ":443"
	if err := n.open(); errdef.ReasonOf(err) != errdef.ConfigInvalid {
		t.Errorf("got %v, want %s", err, errdef.ConfigInvalid)
	}
}

// The libraries log through slog, with their levels.
func TestLibrariesLogThroughSlog(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	line := func() map[string]any {
		t.Helper()
		defer out.Reset()
		fields := map[string]any{}
		if out.Len() > 0 {
			must(t, json.Unmarshal(out.Bytes(), &fields))
		}
		delete(fields, "time")
		return fields
	}
	check := func(want string) {
		t.Helper()
		got, err := json.Marshal(line())
		if must(t, err); string(got) != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	h := newHCLogger(logger, "raft")
	h.With("peer", "b").Warn("slow", "for", hclog.Fmt("%d s", 3), "bytes", []byte("text"))
	check(`{"bytes":"text","component":"raft","for":"3 s","level":"WARN","msg":"slow","peer":"b"}`)
	h.Info("odd", "value")
	check(`{"EXTRA_VALUE_AT_END":"value","component":"raft","level":"INFO","msg":"odd"}`)
	h.Trace("hidden")
	check(`{}`)
	if h.IsTrace() || !h.IsDebug() || h.GetLevel() != hclog.Debug {
		t.Errorf("the level is %s", h.GetLevel())
	}
	l := newLineLogger(logger, "gossip")
	l.Printf("[WARN] memberlist: Refuting a suspect message (from: %s)", "b")
	check(`{"component":"gossip","level":"WARN","msg":"Refuting a suspect message (from: b)"}`)
	l.Print("[ERR] memberlist: bad")
	check(`{"component":"gossip","level":"ERROR","msg":"bad"}`)
	l.Print("no level")
	check(`{"component":"gossip","level":"INFO","msg":"no level"}`)
}
