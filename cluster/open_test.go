package cluster

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ocistern/ocistern/internal/errdef"
)

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	good := Config{
		DataDir: "d", Name: "n", Expect: 3, Join: []string{"host:1"},
		Listen: Addresses{Raft: "127.0.0.1:0", Gossip: ":0"},
	}
	if got, err := good.complete(); err != nil || got.Timings.Heartbeat == 0 || got.Timings.TrailingLogs == 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, spoil := range map[string]func(*Config){
		"data-dir":          func(c *Config) { c.DataDir = "" },
		"cluster.expect":    func(c *Config) { c.Expect = 0 },
		"name":              func(c *Config) { c.Name = strings.Repeat("n", maxName+1) },
		"listen.raft":       func(c *Config) { c.Listen.Raft = "5040" },
		"listen.gossip":     func(c *Config) { c.Listen.Gossip = "" },
		"cluster.join":      func(c *Config) { c.Join = []string{"host"} },
		"advertise-host":    func(c *Config) { c.Listen.Raft = "0.0.0.0:0" },
		"cannot listen on ": func(c *Config) { c.Listen.Raft = "192.0.2.1:0" },
	} {
		cfg := good
		cfg.DataDir = t.TempDir()
		spoil(&cfg)
		n := &node{fleet: newFleet(t), config: cfg}
		if err := n.open(); errdef.ReasonOf(err) != errdef.ConfigInvalid || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestAdvertised(t *testing.T) {
	bound := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 5040}
	for _, c := range []struct{ told, want string }{
		{"", "10.0.0.1:5040"}, {":0", "10.0.0.1:5040"}, {"node-0.example.com:0", "node-0.example.com:5040"},
		{"node-0.example.com:1", "node-0.example.com:1"}, {":7", "10.0.0.1:7"},
	} {
		if got, err := advertised(c.told, bound); err != nil || got != c.want {
			t.Errorf("advertised(%q) = %q, %v; want %q", c.told, got, err, c.want)
		}
	}
	if _, err := advertised("nonsense", bound); errdef.ReasonOf(err) != errdef.ConfigInvalid {
		t.Errorf("got %v", err)
	}
}

// A port in use is named with its setting, and a failed start leaves nothing running: the next one succeeds.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		setting string
		occupy  func(t *testing.T, n *node) (release func() error)
	}{
		{"listen.raft", func(t *testing.T, n *node) func() error {
			l, err := net.Listen("tcp", n.config.Listen.Raft)
			must(t, err)
			return l.Close
		}},
		{"listen.gossip", func(t *testing.T, n *node) func() error {
			l, err := net.Listen("tcp", n.config.Listen.Gossip)
			must(t, err)
			return l.Close
		}},
		{"listen.gossip", func(t *testing.T, n *node) func() error {
			l, err := net.ListenPacket("udp", n.config.Listen.Gossip)
			must(t, err)
			return l.Close
		}},
	} {
		f := newFleet(t)
		n := f.prepare(1, 1)[0]
		release := c.occupy(t, n)
		err := n.open()
		if errdef.ReasonOf(err) != errdef.AddressInUse || !strings.Contains(err.Error(), c.setting+": 127.") {
			t.Errorf("%s: got %v", c.setting, err)
		}
		must(t, release())
		f.start(n)
	}
}

func TestDataDirInUse(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	n := f.prepare(1, 1)[0]
	n.start()
	second := f.add(1, freeAddress())
	second.config.DataDir = n.config.DataDir
	err := second.open()
	if errdef.ReasonOf(err) != errdef.StorageFailed || !strings.Contains(err.Error(), "used by another process") {
		t.Errorf("got %v", err)
	}
}

// The identity and the Raft store belong together: votes that were lost are never cast again under their id.
func TestIdentityIsTiedToTheStore(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		want   errdef.Reason // empty: the node starts
		same   bool          // under the same id
	}{
		{"nothing", func(*testing.T, string) {}, "", true},
		{"raft.db lost", func(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Join(dir, "raft"))) },
			errdef.ContentCorrupt, false},
		{"node.json lost", func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "node.json"))) },
			errdef.ContentCorrupt, false},
		{"node.json cut off", func(t *testing.T, dir string) {
			must(t, os.Truncate(filepath.Join(dir, "node.json"), 9))
		}, errdef.ContentCorrupt, false},
		{"node.json of another node", func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "node.json"), []byte(`{"id":"other","clusterId":"x"}`), 0o600))
		}, errdef.ContentCorrupt, false},
		{"node.json without its cluster", func(t *testing.T, dir string) {
			found, err := readRecord(filepath.Join(dir, "node.json"))
			must(t, err)
			must(t, (&identity{path: filepath.Join(dir, "node.json")}).write(record{ID: found.ID}))
		}, errdef.ContentCorrupt, false},
		{"node.json with another cluster", func(t *testing.T, dir string) {
			found, err := readRecord(filepath.Join(dir, "node.json"))
			must(t, err)
			must(t, (&identity{path: filepath.Join(dir, "node.json")}).write(record{ID: found.ID, ClusterID: "other"}))
		}, errdef.ClusterMismatch, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			n := f.prepare(1, 1)[0]
			f.start(n)
			n.write("before")
			must(t, n.cluster.raft.Snapshot().Error()) // so that the catalog is there as soon as raft is
			id := n.cluster.Self()
			n.crash()
			c.damage(t, n.config.DataDir)
			err := n.open()
			if errdef.ReasonOf(err) != c.want {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			var typed *errdef.Error
			if errors.As(err, &typed) && typed.Remedy == "" {
				t.Errorf("%v has no remedy", err)
			}
			if err == nil && (n.cluster.Self() == id) != c.same {
				t.Errorf("the id was %s and is %s", id, n.cluster.Self())
			}
		})
	}
}

// A data directory of another cluster is refused at the start, with a remedy. The cluster it was started against does
// not notice, and a member of it that restarts is not put off by the stranger either.
func TestDataDirOfAnotherCluster(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	ours := f.prepare(1, 1)[0]
	theirs := f.prepare(1, 1)[0]
	f.start(ours, theirs)
	theirs.crash()
	theirs.config.Join = []string{ours.config.Listen.Gossip}
	err := theirs.open()
	var typed *errdef.Error
	if !errors.As(err, &typed) || typed.Reason != errdef.ClusterMismatch || typed.Remedy == "" {
		t.Errorf("got %v, want %s with a remedy", err, errdef.ClusterMismatch)
	}
	ours.write("undisturbed")
	if got := len(ours.cluster.Members()); got != 1 {
		t.Errorf("the cluster shows %d members", got)
	}

	// The stranger starts while the other cluster is away: it finds out later, and says so instead of being ready.
	ours.crash()
	theirs.config.Expect = 3
	theirs.start()
	ours.start()
	f.waitReady(ours)
	f.eventually("the stranger is refused", func() error {
		theirs.cluster.gossip.mutex.Lock()
		defer theirs.cluster.gossip.mutex.Unlock()
		return notNil(theirs.cluster.gossip.astray)
	})
	if err := theirs.cluster.gossip.mismatch(); errdef.ReasonOf(err) != errdef.ClusterMismatch {
		t.Errorf("got %v", err)
	}
}

// notNil turns the wait for an error into the wait for nil.
func notNil(err error) error {
	if err == nil {
		return errdef.New(errdef.NotReady, "there is no error")
	}
	return nil
}
