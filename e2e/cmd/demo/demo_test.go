package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"oras.land/oras-go/v2/registry/remote"

	"github.com/ocistern/ocistern/e2e/command"
	"github.com/ocistern/ocistern/e2e/nodes"
	"github.com/ocistern/ocistern/e2e/upstream"
)

// The demo, with fewer verifiers: status 0, one line for each step, and the figures that it promises.
func TestDemo(t *testing.T) {
	binary := os.Getenv("OCISTERN_BIN")
	if binary == "" {
		built, err := nodes.Build(t.Context(), "../../..", t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		binary = built
	}
	var out, progress bytes.Buffer
	args := []string{"-ocistern", binary, "-verifiers", "12", "-latency", "1ms"}
	code := run(t.Context(), args, &screen{out: &out, err: &progress})
	if code != command.Done {
		t.Fatalf("exit status %d\n%s\n%s", code, out.String(), progress.String())
	}
	for _, want := range []string{
		`✓ directly at the registry +12/12 .* 204 +204\n`,
		`✓ through n1 n2 n3, cold, 4 verifiers each +12/12 .* 17 +204\n`,
		`✓ leader n\d killed; n\d leads after .* +12/12 .* 0 +204\n`,
		`✓ registry stopped, n\d n\d left +12/12 .* 0 +204\n`,
		`✓ n\d restarted, caught up after .* +12/12 .* 0 +204\n`,
		`Every step held\.\n$`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("no line matches %s in\n%s", want, out.String())
		}
	}
}

// A step in which the registry is asked too often, or twice for one object, or in which a verification fails, does not
// hold.
func TestJudgeBites(t *testing.T) {
	for name, c := range map[string]struct {
		reads    int
		measured measured
		allowed  int
		want     string
	}{
		"as it should be":   {reads: 1, allowed: 1},
		"too many requests": {reads: 1, allowed: 0, want: "asked 1 times, 0 are allowed"},
		"asked twice":       {reads: 2, allowed: 2, want: "more than once for the same object"},
		"failed":            {measured: measured{err: errors.New("no signature")}, want: "no signature"},
	} {
		t.Run(name, func(t *testing.T) {
			registry, err := upstream.Start(upstream.Options{Software: upstream.ContainerRegistry})
			if err != nil {
				t.Fatal(err)
			}
			d := &demo{registry: registry, show: &screen{out: &bytes.Buffer{}, err: &bytes.Buffer{}}}
			t.Cleanup(func() {
				if err := d.close(); err != nil {
					t.Error(err)
				}
			})
			for range c.reads {
				read(t, registry)
			}
			err = d.judge(name, c.measured, c.allowed)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// read asks for a manifest that the registry does not have: the request counts all the same.
func read(t *testing.T, registry *upstream.Registry) {
	t.Helper()
	repository, err := remote.NewRepository(registry.Host() + "/" + repository)
	if err != nil {
		t.Fatal(err)
	}
	repository.PlainHTTP = true
	if _, err := repository.Resolve(t.Context(), tag); err == nil {
		t.Fatal("an empty registry resolved a tag")
	}
}

func TestQuantilesAndFormats(t *testing.T) {
	values := []time.Duration{1, 2, 3, 4}
	if got := quantile(values, 0.5); got != 2 {
		t.Errorf("median of %v is %d, want 2", values, got)
	}
	if got := quantile(values, 0.99); got != 4 {
		t.Errorf("p99 of %v is %d, want 4", values, got)
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) = %q, want %q", n, got, want)
		}
	}
	if got := inMilliseconds(1234567 * time.Nanosecond); got != "1.2 ms" {
		t.Errorf("got %q", got)
	}
}

// An interrupt ends the demo with its own status, and says so.
func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, progress bytes.Buffer
	binary, err := os.Executable() // any file will do: no node is started
	if err != nil {
		t.Fatal(err)
	}
	if code := run(ctx, []string{"-ocistern", binary}, &screen{out: &out, err: &progress}); code != command.Interrupted {
		t.Errorf("exit status %d, want %d\n%s", code, command.Interrupted, progress.String())
	}
}
