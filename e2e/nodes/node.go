package nodes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// addresses of a node, host:port each.
type addresses struct{ Registry, GRPC, Admin, Peer, Raft, Gossip string }

// Node is one `ocistern serve` process, or the place of one that does not run.
type Node struct {
	// Name of the node: n1, n2, ...
	Name string
	// Binary is what Start runs.
	Binary string
	// FeatureLevel is cluster.feature-level, as of the next Cluster.Configure; 0 for none.
	FeatureLevel int

	dir       string
	addresses addresses
	process   *os.Process   // nil when not running
	exited    chan struct{} // closed when the process has ended
	outcome   *os.ProcessState
}

// GRPC returns the address of the client API.
func (n *Node) GRPC() string { return n.addresses.GRPC }

// Registry returns the address of the /v2/ API.
func (n *Node) Registry() string { return n.addresses.Registry }

// Admin returns the address of health and metrics.
func (n *Node) Admin() string { return n.addresses.Admin }

// Peer returns the address of the API between nodes.
func (n *Node) Peer() string { return n.addresses.Peer }

// DataDir returns the data directory, which may not exist.
func (n *Node) DataDir() string { return filepath.Join(n.dir, "data") }

// ConfigPath returns the configuration file, with which anybody can start the node.
func (n *Node) ConfigPath() string { return filepath.Join(n.dir, "config.yaml") }

// LogPath returns the file that all runs of the node append to.
func (n *Node) LogPath() string { return filepath.Join(n.dir, "log") }

// Start starts the process and does not wait until it is ready. It does nothing when the process runs.
func (n *Node) Start() error {
	if n.Running() {
		return nil
	}
	log, err := os.OpenFile(n.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("log of %s: %w", n.Name, err)
	}
	defer log.Close()
	command := exec.Command(n.Binary, "serve", "--config", n.ConfigPath())
	command.Stdout, command.Stderr = log, log
	// A node built with the race detector dies of the first race, so that no test can overlook it.
	command.Env = append(withoutSettings(os.Environ()), "GORACE=halt_on_error=1")
	// A process group of its own: an interrupt typed at the terminal is for the program that started the nodes.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	exited := make(chan struct{})
	n.process, n.exited = command.Process, exited
	go func() {
		defer close(exited)
		_ = command.Wait() // the outcome is in ProcessState, and read where it matters
		n.outcome = command.ProcessState
	}()
	return nil
}

// withoutSettings drops OCISTERN_* variables: they would outrank the configuration file.
func withoutSettings(environment []string) []string {
	return slices.DeleteFunc(environment, func(entry string) bool { return strings.HasPrefix(entry, "OCISTERN_") })
}

// Running reports whether the process runs.
func (n *Node) Running() bool {
	if n.process == nil {
		return false
	}
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

// PID returns the process id, 0 when the node was never started.
func (n *Node) PID() int {
	if n.process == nil {
		return 0
	}
	return n.process.Pid
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (n *Node) Kill() error {
	if !n.Running() {
		return n.early()
	}
	if err := n.process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", n.Name, err)
	}
	<-n.exited
	return nil
}

// Terminate ends the process with SIGTERM, as an orchestrator does, and waits. It fails when the node does not end
// before ctx does, or ends with another status than 0.
func (n *Node) Terminate(ctx context.Context) error {
	if !n.Running() {
		return n.early()
	}
	if err := n.process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("terminate %s: %w", n.Name, err)
	}
	select {
	case <-n.exited:
	case <-ctx.Done():
		return fmt.Errorf("%s does not end on SIGTERM: %w", n.Name, ctx.Err())
	}
	if !n.outcome.Success() {
		return fmt.Errorf("%s ended on SIGTERM with %s; its log ends with:\n%s", n.Name, n.outcome, n.LogTail(5))
	}
	return nil
}

// early is the error of a node that should run and does not.
func (n *Node) early() error {
	if n.process == nil {
		return fmt.Errorf("%s was not started", n.Name)
	}
	return fmt.Errorf("%s had ended before: %s; its log ends with:\n%s", n.Name, n.outcome, n.LogTail(5))
}

// Wipe removes the data of a node that does not run: what a lost disk leaves.
func (n *Node) Wipe() error {
	if n.Running() {
		return fmt.Errorf("%s runs; kill it before its data are removed", n.Name)
	}
	return os.RemoveAll(n.DataDir())
}

// AwaitReady waits until the node says that it has caught up and may be asked, and fails at once when it ends.
func (n *Node) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-n.exited:
			cancel(n.early())
		case <-ctx.Done():
		}
	}()
	if err := Await(ctx, n.ready); err != nil {
		return fmt.Errorf("%s is not ready: %w", n.Name, err)
	}
	return nil
}

func (n *Node) ready(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Admin()+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, 1024))
	return errors.Join(fmt.Errorf("readyz answers %s: %s", response.Status, bytes.TrimSpace(text)), err)
}

// LogTail returns the last lines of the node's log, for a failure message.
func (n *Node) LogTail(lines int) string {
	text, err := os.ReadFile(n.LogPath())
	if err != nil {
		return err.Error()
	}
	text = bytes.TrimRight(text, "\n")
	for i := len(text) - 1; i >= 0; i-- {
		if text[i] == '\n' {
			if lines--; lines == 0 {
				return string(text[i+1:])
			}
		}
	}
	return string(text)
}
