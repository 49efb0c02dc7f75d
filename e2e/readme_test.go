package e2e

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ocistern/ocistern/e2e/upstream"
	"github.com/ocistern/ocistern/internal/devcluster"
)

// blocks returns the fenced blocks of the README in one language.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, match := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllSubmatch(text, -1) {
		found = append(found, string(match[1]))
	}
	if len(found) == 0 {
		t.Fatalf("the README has no block of %s", language)
	}
	return found
}

// shellLines returns the commands of all shell blocks, without their comments.
func shellLines(t *testing.T) []string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(strings.Join(blocks(t, "sh"), "\n")) {
		line, _, _ = strings.Cut(line, " #")
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestReadmeNamesTargetsOfTheMakefile(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join("..", "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range shellLines(t) {
		if target, ok := strings.CutPrefix(line, "make "); ok && !bytes.Contains(makefile, []byte("\n"+target+": ")) {
			t.Errorf("README: %s: the Makefile has no such target", line)
		}
	}
}

// The README's commands and its program do what it says, on `ocistern dev` and a registry with content. Only the ports
// are other ones.
func TestReadmeCommandsWork(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	registry, err := upstream.Start(upstream.Options{Software: upstream.ContainerRegistry})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registry.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &scene{registry: registry}
	if err := s.pushSigned("org/app:v1", 1); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	ported := map[string]string{"127.0.0.1:5555": registry.Host()}
	ran := 0
	for _, line := range shellLines(t) {
		switch {
		case strings.HasPrefix(line, "bin/ocistern dev"):
			endpoints := startDev(ctx, t, home, portedLine(line, ported)+" --base-port 0")
			for i, node := range endpoints.Nodes {
				port := string(rune('1' + i))
				ported["127.0.0.1:500"+port] = strings.TrimPrefix(node.Registry, "http://")
				ported["127.0.0.1:501"+port] = node.GRPC
			}
		case strings.HasPrefix(line, "make "):
		default:
			if out := shell(ctx, t, home, portedLine(line, ported)); strings.TrimSpace(out) == "" {
				t.Errorf("README: %s: printed nothing", line)
			}
			ran++
		}
	}
	if ran < 4 {
		t.Errorf("only %d commands of the README were run", ran)
	}
	program := filepath.Join(home, "main.go")
	if err := os.WriteFile(program, []byte(portedLine(blocks(t, "go")[0], ported)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := shell(ctx, t, os.Getenv("HOME"), "go run "+program); !strings.HasPrefix(out, "sha256:") {
		t.Errorf("the README's program printed %q", out)
	}
}

func portedLine(text string, ported map[string]string) string {
	for from, to := range ported {
		text = strings.ReplaceAll(text, from, to)
	}
	return strings.ReplaceAll(text, "bin/ocistern", os.Getenv(binaryVariable))
}

// shell runs a command line in the e2e module and returns what it prints.
func shell(ctx context.Context, t *testing.T, home, line string) string {
	t.Helper()
	command := exec.CommandContext(ctx, "sh", "-c", line)
	command.Env = append(os.Environ(), "HOME="+home, "XDG_CACHE_HOME="+filepath.Join(home, ".cache"))
	if home == os.Getenv("HOME") {
		command.Env = os.Environ()
	}
	var stderr strings.Builder
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Errorf("README: %s: %v\n%s%s", line, err, out, stderr.String())
	}
	return string(out)
}

// startDev runs `ocistern dev`, waits for its line `ready` and stops it when the test ends.
func startDev(ctx context.Context, t *testing.T, home, line string) devcluster.Endpoints {
	t.Helper()
	data := t.TempDir()
	command := exec.CommandContext(ctx, "sh", "-c", "exec "+line+" --data "+data)
	command.Env = append(os.Environ(), "HOME="+home, "XDG_CACHE_HOME="+filepath.Join(home, ".cache"))
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 20 * time.Second
	var stderr strings.Builder
	command.Stderr = &stderr
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := command.Cancel(); err != nil {
			t.Error(err)
		}
		if err := command.Wait(); err != nil && ctx.Err() == nil {
			t.Errorf("ocistern dev ended with %v\n%s", err, stderr.String())
		}
	})
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if lines.Text() == "ready" {
			endpoints, err := devcluster.Read(filepath.Join(data, devcluster.EndpointsFile))
			if err != nil {
				t.Fatal(err)
			}
			return endpoints
		}
	}
	t.Fatalf("ocistern dev never printed ready\n%s", stderr.String())
	return devcluster.Endpoints{}
}
