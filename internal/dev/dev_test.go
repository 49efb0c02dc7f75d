package dev

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ocistern/ocistern/internal/config"
	"github.com/ocistern/ocistern/internal/devcluster"
	"github.com/ocistern/ocistern/internal/errdef"
)

// The test binary stands in for a node: `serve --config FILE` answers /readyz until it is told to stop.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "serve" {
		os.Exit(standIn(os.Args[3]))
	}
	os.Exit(m.Run())
}

func standIn(file string) int {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	parsed, _, err := config.Load(config.Sources{File: file, Environ: os.Environ()})
	if err != nil {
		return 1
	}
	if _, err := os.Stat(filepath.Join(parsed.DataDir, "refuse")); err == nil {
		_, _ = os.Stderr.WriteString(`{"level":"ERROR","msg":"cannot start","error":"told to refuse"}` + "\n")
		return 7
	}
	listener, err := net.Listen("tcp", parsed.Listen.Admin)
	if err != nil {
		return 1
	}
	ready := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	go http.Serve(listener, ready) //nolint:errcheck // ends with the process
	<-ctx.Done()
	return 0
}

// trial is a running dev cluster of stand-ins.
type trial struct {
	endpoints devcluster.Endpoints
	stderr    *bufio.Reader
	stop      func()
	result    chan error
}

func optionsFor(t *testing.T) Options {
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Nodes: 3, Executable: executable, Command: "bin/ocistern", Version: "v0", Stdout: io.Discard, Stderr: io.Discard,
		Pointer: devcluster.Pointer(filepath.Join(t.TempDir(), "dev.json")),
	}
}

// begin runs a cluster and returns once it has said that it is ready.
func begin(t *testing.T, options Options) *trial {
	t.Helper()
	outReader, outWriter := io.Pipe()
	errReader, errWriter := io.Pipe()
	options.Stdout, options.Stderr = outWriter, errWriter
	ctx, stop := context.WithCancel(t.Context())
	tr := &trial{stderr: bufio.NewReader(errReader), stop: stop, result: make(chan error, 1)}
	go func() {
		err := Run(ctx, options)
		_ = errors.Join(outWriter.CloseWithError(err), errWriter.Close())
		tr.result <- err
	}()
	if line, err := bufio.NewReader(outReader).ReadString('\n'); line != "ready\n" {
		t.Fatalf("said %q, %v", line, err)
	}
	var err error
	if tr.endpoints, err = options.Pointer.Find(); err != nil {
		t.Fatal(err)
	}
	return tr
}

// until reads what a person sees up to a line that contains text.
func (tr *trial) until(t *testing.T, text string) string {
	t.Helper()
	var seen strings.Builder
	for {
		line, err := tr.stderr.ReadString('\n')
		seen.WriteString(line)
		if strings.Contains(line, text) {
			return seen.String()
		}
		if err != nil {
			t.Fatalf("%v before %q:\n%s", err, text, seen.String())
		}
	}
}

func (tr *trial) end(t *testing.T) {
	t.Helper()
	tr.stop()
	tr.until(t, "stopping")
	if err := <-tr.result; err != nil {
		t.Errorf("Run: %v", err)
	}
	for _, n := range tr.endpoints.Nodes {
		if err := syscall.Kill(n.PID, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("node %s (pid %d) is still there: %v", n.ID, n.PID, err)
		}
	}
}

func TestRunTemporary(t *testing.T) {
	t.Setenv("OCISTERN_NAME", "of-the-shell") // must not reach the nodes
	options := optionsFor(t)
	options.Upstreams = []string{"up.test=http://127.0.0.1:9"}
	tr := begin(t, options)
	shown := tr.until(t, "/v2/")
	for _, want := range []string{
		"Ocistern v0", "temporary", "bin/ocistern status", "resolve up.test/REPOSITORY:TAG", tr.endpoints.Nodes[2].GRPC,
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("the banner lacks %q:\n%s", want, shown)
		}
	}
	data := tr.endpoints.Nodes[0].Data
	parsed, _, err := config.Load(config.Sources{File: filepath.Join(data, "config.yaml")})
	if err != nil || parsed.Name != "n1" || len(parsed.Cluster.Join) != 2 || len(parsed.Upstreams) != 1 {
		t.Errorf("configuration of n1: %+v, %v", parsed, err)
	}
	tr.end(t)
	if _, err := os.Stat(filepath.Dir(data)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("temporary data are still there: %v", err)
	}
	if _, err := options.Pointer.Find(); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("the pointer is still there: %v", err)
	}
}

func TestNodeDiesOthersGoOn(t *testing.T) {
	tr := begin(t, optionsFor(t))
	dead := tr.endpoints.Nodes[1]
	if err := syscall.Kill(dead.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	tr.until(t, "node n2 (pid")
	tr.until(t, "bring it back with: bin/ocistern serve --config "+filepath.Join(dead.Data, "config.yaml"))
	for _, n := range []devcluster.Node{tr.endpoints.Nodes[0], tr.endpoints.Nodes[2]} {
		if err := syscall.Kill(n.PID, 0); err != nil {
			t.Errorf("node %s: %v", n.ID, err)
		}
	}
	tr.end(t)
}

func TestAllNodesDie(t *testing.T) {
	tr := begin(t, optionsFor(t))
	for _, n := range tr.endpoints.Nodes {
		if err := syscall.Kill(n.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	for range tr.endpoints.Nodes {
		tr.until(t, "has ended: signal: killed")
		tr.until(t, "bring it back")
	}
	if err := <-tr.result; !errors.Is(err, errdef.ErrUnavailable) {
		t.Errorf("got %v, want UNAVAILABLE", err)
	}
}

func TestKeptDataKeepAddresses(t *testing.T) {
	options := optionsFor(t)
	options.Data = filepath.Join(t.TempDir(), "kept")
	first := begin(t, options)
	first.until(t, "The data stay in")
	first.until(t, "/v2/")
	first.end(t)
	second := begin(t, options)
	second.until(t, "/v2/")
	for i, n := range second.endpoints.Nodes {
		if n.GRPC != first.endpoints.Nodes[i].GRPC {
			t.Errorf("%s moved from %s to %s", n.ID, first.endpoints.Nodes[i].GRPC, n.GRPC)
		}
	}
	second.end(t)
	options.BasePort, options.FixedPorts = 20000, true
	if err := Run(t.Context(), options); !errors.Is(err, errdef.ErrUsageInvalid) {
		t.Errorf("other ports for the same data: %v, want USAGE_INVALID", err)
	}
}

func TestNodeThatCannotStartEndsRun(t *testing.T) {
	options := optionsFor(t)
	options.Data = t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(options.Data, "n3"), 0o750),
		os.WriteFile(filepath.Join(options.Data, "n3", "refuse"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	err := Run(t.Context(), options)
	if err == nil || !strings.Contains(err.Error(), "exit status 7: cannot start: told to refuse") {
		t.Errorf("got %v", err)
	}
}

// freeBase returns a base port whose cluster of three would start.
func freeBase(t *testing.T) int {
	t.Helper()
	for range freeAttempts {
		base := freeFirst + rand.IntN(freeLast-freeFirst-100)
		var reserved reservation
		var err error
		for i := range 3 {
			if err == nil {
				_, err = reserved.take(fixed(base, i+1))
			}
		}
		reserved.release()
		if err == nil {
			return base
		}
	}
	t.Fatal("no free ports")
	return 0
}

func TestPortInUse(t *testing.T) {
	options := optionsFor(t)
	options.BasePort, options.Data = freeBase(t), filepath.Join(t.TempDir(), "data")
	taken, err := net.Listen("tcp", fixed(options.BasePort, 2).Admin)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	err = Run(t.Context(), options)
	if !errors.Is(err, errdef.ErrAddressInUse) || !strings.Contains(err.Error(), taken.Addr().String()) ||
		!strings.Contains(err.Error(), "--base-port 0") {
		t.Errorf("got %v, want ADDRESS_IN_USE for %s", err, taken.Addr())
	}
	if _, err := os.Stat(options.Data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was left behind: %v", err)
	}
}

func TestWrongUsage(t *testing.T) {
	tests := []struct {
		change func(*Options)
		want   error
	}{
		{func(o *Options) { o.Nodes = 0 }, errdef.ErrUsageInvalid},
		{func(o *Options) { o.Nodes = 10 }, errdef.ErrUsageInvalid},
		{func(o *Options) { o.BasePort = -1 }, errdef.ErrUsageInvalid},
		{func(o *Options) { o.Upstreams = []string{"ghcr.io"} }, errdef.ErrConfigInvalid},
	}
	for i, test := range tests {
		options := optionsFor(t)
		test.change(&options)
		if err := Run(t.Context(), options); !errors.Is(err, test.want) {
			t.Errorf("%d: got %v, want %v", i, err, test.want)
		}
	}
}

func TestQuoted(t *testing.T) {
	for text, want := range map[string]string{"bin/ocistern": "bin/ocistern", "a b": "'a b'", "it's": `'it'\''s'`} {
		if got := quoted(text); got != want {
			t.Errorf("quoted(%s) = %s", text, got)
		}
	}
	var last bytes.Buffer
	last.WriteString("{\"msg\":\"a\",\"error\":\"b\"}\n")
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, last.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := lastWords(path); got != "a: b" {
		t.Errorf("lastWords = %q", got)
	}
}
