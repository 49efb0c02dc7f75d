package dev

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/ocistern/ocistern/internal/devcluster"
	"github.com/ocistern/ocistern/internal/errdef"
)

// fleet is the running nodes.
type fleet struct {
	nodes  []process
	deaths chan death // one for each node that ends, buffered
}

// process is one running node.
type process struct {
	node
	command *exec.Cmd
	ended   chan struct{} // closed once it has ended and death was sent
}

// death tells that a node has ended.
type death struct {
	node node
	pid  int
	err  error
}

func (d death) String() string {
	how := "exit status 0"
	if d.err != nil {
		how = d.err.Error()
	}
	return fmt.Sprintf("node %s (pid %d) has ended: %s", d.node.name, d.pid, how)
}

// start starts all nodes. The fleet that it returns holds what was started, with an error too.
func start(executable string, nodes []node) (*fleet, error) {
	f := &fleet{deaths: make(chan death, len(nodes))}
	for _, n := range nodes {
		started, err := f.startNode(executable, n)
		if err != nil {
			return f, errdef.Wrap(errdef.Internal, err, "cannot start node %s", n.name)
		}
		f.nodes = append(f.nodes, started)
	}
	return f, nil
}

func (f *fleet) startNode(executable string, n node) (process, error) {
	log, err := os.OpenFile(n.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return process{}, err
	}
	defer log.Close() // the child has its own descriptor
	command := exec.Command(executable, "serve", "--config", n.configPath())
	command.Stdout, command.Stderr = log, log
	command.Env = withoutSettings(os.Environ())
	command.SysProcAttr = childAttributes()
	if err := command.Start(); err != nil {
		return process{}, err
	}
	p := process{node: n, command: command, ended: make(chan struct{})}
	go func() {
		err := command.Wait()
		f.deaths <- death{node: n, pid: command.Process.Pid, err: err}
		close(p.ended)
	}()
	return p, nil
}

// withoutSettings drops variables that would override the configuration file of every node alike.
func withoutSettings(environ []string) []string {
	var kept []string
	for _, variable := range environ {
		if !strings.HasPrefix(variable, "OCISTERN_") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// stop asks all nodes to stop, waits for them, and kills those that take longer than patience.
func (f *fleet) stop(patience time.Duration) {
	for _, p := range f.nodes {
		p.signal(syscall.SIGTERM)
	}
	timeout := time.After(patience)
	for _, p := range f.nodes {
		select {
		case <-p.ended:
			continue
		case <-timeout:
		}
		for _, late := range f.nodes {
			late.signal(syscall.SIGKILL)
		}
		<-p.ended
	}
}

// signal sends s. That the process has ended already is what the caller wants.
func (p process) signal(s syscall.Signal) {
	if err := p.command.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		_ = p.command.Process.Kill() // a process that cannot be signalled cannot be killed either; Wait will tell
	}
}

func (f *fleet) endpoints() devcluster.Endpoints {
	var endpoints devcluster.Endpoints
	for _, p := range f.nodes {
		endpoints.Nodes = append(endpoints.Nodes, devcluster.Node{
			ID: p.name, Registry: "http://" + p.listen.Registry, GRPC: p.listen.GRPC, Admin: "http://" + p.listen.Admin,
			PID: p.command.Process.Pid, Data: p.dir,
		})
	}
	return endpoints
}
