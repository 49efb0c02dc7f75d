package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ocistern/ocistern/internal/config"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/policy"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
)

const patience = time.Minute // of a busy machine

func configFor(t *testing.T, dir string) config.Config {
	t.Helper()
	const free = "127.0.0.1:0"
	return config.Config{
		Name: "n1", DataDir: dir,
		Listen:  config.Listen{Registry: free, GRPC: free, Admin: free, Peer: free, Raft: free, Gossip: free},
		Cluster: config.Cluster{Expect: 1},
		Limits:  config.Limits{ManifestBytes: 1 << 20, MemoryBytes: 8 << 20},
	}
}

func testLogger(t *testing.T) *slog.Logger {
	return NewLogger(t.Output(), "n1", slog.LevelInfo)
}

// begin starts a node and returns how to stop it, which returns what Run did.
func begin(t *testing.T, cfg config.Config) (*Node, func() error) {
	t.Helper()
	n, err := Start(cfg, Options{Version: "v0", Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- n.Run(ctx) }()
	stop := func() error {
		cancel()
		select {
		case err := <-result:
			result <- err
			return err
		case <-time.After(patience):
			return errors.New("the node does not stop")
		}
	}
	t.Cleanup(func() { _ = stop() })
	return n, stop
}

func get(t *testing.T, listener net.Listener, path string) (int, string) {
	t.Helper()
	response, err := http.Get("http://" + listener.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func awaitReady(t *testing.T, n *Node) {
	t.Helper()
	deadline := time.After(patience)
	for ticker := time.NewTicker(20 * time.Millisecond); ; {
		status, body := get(t, n.listeners.admin, "/readyz")
		if status == http.StatusOK {
			ticker.Stop()
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("not ready: %s", body)
		}
	}
}

func status(t *testing.T, n *Node) *registryv1.GetStatusResponse {
	t.Helper()
	conn, err := grpc.NewClient(n.listeners.grpc.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // of a test
	service := registryv1.NewRegistryServiceClient(conn)
	response, err := service.GetStatus(t.Context(), &registryv1.GetStatusRequest{CatalogDigest: true})
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// mirrored is where the node has what the upstream serves: manifest.
const mirrored = "/v2/up.test/app/manifests/v1"

const manifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
	`"config":{"mediaType":"application/vnd.oci.empty.v1+json","size":2,` +
	`"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},` +
	`"layers":[]}`

// A single node serves what an upstream has, tells about itself, stops in order and comes back as the same node.
func TestSingleNode(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/v2/app/manifests/") {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		_, _ = io.WriteString(w, manifest)
	}))
	defer upstream.Close()
	cfg := configFor(t, filepath.Join(t.TempDir(), "data"))
	cfg.Upstreams = []config.Upstream{{Name: "up.test", URL: upstream.URL}}
	nothing := 0 // fetched ahead: requests are counted below
	cfg.Policies = []policy.Rule{{Match: "up.test/**", PrefetchDepth: &nothing}}

	n, stop := begin(t, cfg)
	if code, body := get(t, n.listeners.admin, "/livez"); code != http.StatusOK {
		t.Errorf("/livez: %d %s", code, body)
	}
	awaitReady(t, n)
	for range 2 {
		if code, body := get(t, n.listeners.registry, mirrored); code != http.StatusOK || body != manifest {
			t.Errorf("manifest: %d %s", code, body)
		}
	}
	before := status(t, n)
	if before.GetVersion() != "v0" || before.GetLeader() != before.GetNode().GetId() || len(before.GetMembers()) != 1 ||
		before.GetCatalog().GetTags() != 1 || before.GetCatalog().GetDigest() == "" ||
		before.GetUpstreams()[0].GetRequests() != 1 {
		t.Errorf("status: %v", before)
	}
	checkMetrics(t, n)
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}

	upstream.Close()
	again, stop := begin(t, cfg)
	awaitReady(t, again)
	after := status(t, again)
	if after.GetNode().GetId() != before.GetNode().GetId() || after.GetClusterId() != before.GetClusterId() {
		t.Errorf("came back as %v, was %v", after.GetNode(), before.GetNode())
	}
	if code, body := get(t, again.listeners.registry, mirrored); code != http.StatusOK || body != manifest {
		t.Errorf("after the restart, without the upstream: %d %s", code, body)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func checkMetrics(t *testing.T, n *Node) {
	t.Helper()
	families, err := n.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v %v", problems, err)
	}
	_, body := get(t, n.listeners.admin, "/metrics")
	for _, want := range []string{
		`ocistern_requests_total{api="manifest",result="ok",source="fill"} 1`,
		`ocistern_requests_total{api="manifest",result="ok",source="catalog"} 1`,
		`ocistern_upstream_requests_total{operation="manifest",result="ok",upstream="up.test"} 1`,
		`ocistern_upstream_requests_avoided_total{upstream="up.test"} 1`,
		`ocistern_http_requests_total{endpoint="manifest",result="ok"} 2`,
		"ocistern_raft_applied_lag 0", "ocistern_raft_leader 1", "ocistern_ready 1", `ocistern_catalog_records{kind="tag"} 1`,
		"ocistern_content_blobs 1", `ocistern_build_info{goversion="go`, "go_goroutines", "process_open_fds",
		"ocistern_fills_running ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

// What a verifier asks next is fetched ahead, and counted.
func TestNodeFetchesAhead(t *testing.T) {
	asked := make(chan string, 100)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		if !strings.HasPrefix(r.URL.Path, "/v2/app/manifests/v1") {
			http.NotFound(w, r) // no referrers, by the tag schema
			return
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		_, _ = io.WriteString(w, manifest)
	}))
	defer upstream.Close()
	cfg := configFor(t, filepath.Join(t.TempDir(), "data"))
	cfg.Upstreams = []config.Upstream{{Name: "up.test", URL: upstream.URL}}
	n, stop := begin(t, cfg)
	awaitReady(t, n)
	if code, _ := get(t, n.listeners.registry, mirrored); code != http.StatusOK {
		t.Fatal(code)
	}
	for path := ""; !strings.HasPrefix(path, "/v2/app/manifests/sha256-"); { // the list of referrers
		select {
		case path = <-asked:
		case <-time.After(time.Minute):
			t.Fatal("the referrers were not asked for")
		}
	}
	if err := stop(); err != nil { // waits for the walk
		t.Errorf("stop: %v", err)
	}
	families, err := n.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	ended := 0.0
	for _, family := range families {
		if family.GetName() == "ocistern_prefetch_walks_total" {
			for _, metric := range family.GetMetric() {
				ended += metric.GetCounter().GetValue()
			}
		}
	}
	if ended != 1 {
		t.Errorf("%v walks have ended, want 1", ended)
	}
}

// A node that waits for others is alive but not ready, tells why, and stops like any other.
func TestNodeWithoutItsCluster(t *testing.T) {
	cfg := configFor(t, t.TempDir())
	cfg.Cluster.Expect = 3
	n, stop := begin(t, cfg)
	if code, _ := get(t, n.listeners.admin, "/livez"); code != http.StatusOK {
		t.Errorf("/livez: %d", code)
	}
	code, body := get(t, n.listeners.admin, "/readyz")
	if code != http.StatusServiceUnavailable || strings.TrimSpace(body) == "" {
		t.Errorf("/readyz: %d %q", code, body)
	}
	if code, body := get(t, n.listeners.registry, "/v2/a/b/manifests/v1"); code != http.StatusServiceUnavailable {
		t.Errorf("a read: %d %s", code, body)
	}
	if status(t, n).GetLeader() != "" {
		t.Error("a cluster was made of one node of three")
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestFailureEndsRun(t *testing.T) {
	n, err := Start(configFor(t, t.TempDir()), Options{Version: "v0", Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	n.fail(errdef.New(errdef.CommandUnknown, "entry 7"))
	n.fail(errdef.New(errdef.Internal, "a later one"))
	if err := n.Run(t.Context()); !errors.Is(err, errdef.ErrCommandUnknown) || errors.Is(err, errdef.ErrInternal) {
		t.Errorf("Run: %v", err)
	}
	if _, err := net.Dial("tcp", n.listeners.admin.Addr().String()); err == nil {
		t.Error("still listening")
	}
}

// A part that never stops, as on a disk that hangs, does not keep the process.
func TestRunEndsWithoutAPartThatDoesNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{options: Options{Logger: testLogger(t)}, life: life{fatal: make(chan error, 1)}}
		release := make(chan struct{})
		defer close(release)
		n.onClose("the disk", func(context.Context) error {
			<-release
			return nil
		})
		n.fail(errdef.New(errdef.StorageFailed, "the disk hangs"))
		begin := time.Now()
		if err := n.Run(t.Context()); !errors.Is(err, errdef.ErrStorageFailed) {
			t.Errorf("Run: %v", err)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("Run took %s", took)
		}
	})
}

func TestPortInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close() //nolint:errcheck // of a test
	tests := []struct {
		setting string
		address string
		field   func(*config.Listen) *string
	}{
		{"listen.registry", taken.Addr().String(), func(l *config.Listen) *string { return &l.Registry }},
		{"listen.grpc", taken.Addr().String(), func(l *config.Listen) *string { return &l.GRPC }},
		{"listen.admin", taken.Addr().String(), func(l *config.Listen) *string { return &l.Admin }},
		{"listen.peer", taken.Addr().String(), func(l *config.Listen) *string { return &l.Peer }},
		{"listen.raft", taken.Addr().String(), func(l *config.Listen) *string { return &l.Raft }},
		{"listen.gossip", taken.Addr().String(), func(l *config.Listen) *string { return &l.Gossip }},
		{"listen.gossip", socket.LocalAddr().String(), func(l *config.Listen) *string { return &l.Gossip }},
	}
	for _, test := range tests {
		t.Run(test.setting, func(t *testing.T) {
			cfg := configFor(t, filepath.Join(t.TempDir(), "data"))
			*test.field(&cfg.Listen) = test.address
			_, err := Start(cfg, Options{Logger: testLogger(t)})
			flag := "--" + strings.ReplaceAll(test.setting, ".", "-")
			if !errors.Is(err, errdef.ErrAddressInUse) || !strings.Contains(err.Error(), test.setting+" "+test.address) ||
				!strings.Contains(err.Error(), flag) {
				t.Errorf("got %v, want ADDRESS_IN_USE that names %s and %s", err, test.setting, flag)
			}
			if _, err := os.Stat(cfg.DataDir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("something was written: %v", err)
			}
		})
	}
}

func TestUnusableDataDir(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		_, err := Start(configFor(t, dir), Options{Logger: testLogger(t)})
		if !errors.Is(err, errdef.ErrConfigInvalid) || !strings.Contains(err.Error(), "--data-dir") {
			t.Errorf("data-dir %s: %v, want CONFIG_INVALID", dir, err)
		}
	}
}

func TestDataDirOfRunningNode(t *testing.T) {
	cfg := configFor(t, t.TempDir())
	begin(t, cfg)
	if _, err := Start(cfg, Options{Logger: testLogger(t)}); !errors.Is(err, errdef.ErrDirectoryInUse) {
		t.Errorf("got %v, want DIRECTORY_IN_USE", err)
	}
}
