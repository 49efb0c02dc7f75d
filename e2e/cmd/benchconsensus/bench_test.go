package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/ocistern/ocistern/e2e/command"
	"github.com/ocistern/ocistern/e2e/nodes"
	"github.com/ocistern/ocistern/fsm"
)

// The whole benchmark with small numbers: it measures every figure, whatever comes out.
func TestQuick(t *testing.T) {
	dir := t.TempDir()
	binary := os.Getenv("OCISTERN_BIN")
	if binary == "" {
		built, err := nodes.Build(t.Context(), "../../..", dir)
		if err != nil {
			t.Fatal(err)
		}
		binary = built
	}
	etcdnode := filepath.Join(dir, "etcdnode")
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-o", etcdnode, "../etcdnode").CombinedOutput(); err != nil {
		t.Fatalf("etcdnode does not build: %v\n%s", err, output)
	}
	var out, progress bytes.Buffer
	code := benchmark().Run(t.Context(), []string{"-quick", "-ocistern", binary, "-etcdnode", etcdnode, "-dir", dir}, &out, &progress)
	if code != command.Done {
		t.Fatalf("exit status %d\n%s\n%s", code, out.String(), progress.String())
	}
	for _, want := range []string{
		`^fsync-p50 .*`, `^fsync-p99 .*`,
		`^commits-1-clients .* >=1\.00x (reached|short)`, `^commits-64-clients .* >=2\.00x (reached|short)`,
		`^commits-256-clients .* >=2\.00x (reached|short)`,
		`^reads-1-client .* - -`, `^reads-64-clients .* >=2\.00x (reached|short)`,
		`^reads-follower-1-client .* - -`, `^reads-follower-64-clients .* >=2\.00x (reached|short)`,
		`^failover-p99 .* <=3s (reached|short)`, `^transfer-p99 .* <=500ms (reached|short)`,
		`^commits-during-snapshot .* - -`, `^write-p99-during-snapshot .* <=2\.00x (reached|short)`,
		`^restart .* <=10s (reached|short)`, `^memory-per-record .* <=1229B (reached|short)`,
		`^\d+ of 10 reached\n\z`,
	} {
		if !regexp.MustCompile("(?m)" + want).MatchString(out.String()) {
			t.Errorf("no line matches %s in\n%s", want, out.String())
		}
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{
		{"-only", "everything"}, {"-match", "("}, {"-ocistern", "/nowhere"}, {"-unknown"},
	} {
		var out, progress bytes.Buffer
		if code := benchmark().Run(t.Context(), args, &out, &progress); code != command.Usage || progress.Len() == 0 || out.Len() > 0 {
			t.Errorf("%v: exit status %d, printed %q and %q", args, code, out.String(), progress.String())
		}
	}
}

// What is written in one call must weigh the same on both sides; ours may weigh more.
func TestCommandHasTheSizeOfThePeersValue(t *testing.T) {
	command, err := fsm.Encode(observeTag(1, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	least := len(tagName(1)) + len(payload)
	if len(command) < least || len(command) > least+least/10 {
		t.Errorf("the command has %d bytes, key and value of etcd %d", len(command), least)
	}
}

func TestWindows(t *testing.T) {
	zero := time.Now()
	at := func(seconds int) time.Time { return zero.Add(time.Duration(seconds) * time.Second) }
	joined := union([]window{{at(5), at(7)}, {at(1), at(3)}, {at(2), at(4)}, {at(7), at(8)}})
	if len(joined) != 2 || joined[0] != (window{at(1), at(4)}) || joined[1] != (window{at(5), at(8)}) {
		t.Fatalf("joined to %v", joined)
	}
	for _, c := range []struct {
		begin, seconds int
		want           bool
	}{{0, 1, false}, {0, 2, true}, {2, 1, true}, {4, 1, false}, {4, 2, true}, {8, 1, false}} {
		if got := overlaps(joined, sample{began: at(c.begin), took: time.Duration(c.seconds) * time.Second}); got != c.want {
			t.Errorf("%d s long from %d s on: overlaps %t", c.seconds, c.begin, got)
		}
	}
}
