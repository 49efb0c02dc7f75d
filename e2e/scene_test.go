package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ocistern/ocistern/e2e/nodes"
	"github.com/ocistern/ocistern/e2e/signed"
	"github.com/ocistern/ocistern/e2e/upstream"
)

// scene is what one script plays in: one registry, one cluster, and the policy for its signed images.
type scene struct {
	script, binary, dir string
	// old builds the version of feature level 1, when a script asks for it first; initial is what a cluster starts with.
	old     func() (string, error)
	initial string
	// held becomes true with the last command of the script.
	held bool

	name     string
	registry *upstream.Registry
	cluster  *nodes.Cluster
	policy   *signed.Verifier
	load     *load // nil while none runs
}

func (s *scene) close() error {
	var failures []error
	if s.load != nil {
		failures = append(failures, s.load.end())
	}
	if s.cluster != nil {
		failures = append(failures, s.cluster.Close())
	}
	if s.registry != nil {
		failures = append(failures, s.registry.Close())
	}
	return errors.Join(failures...)
}

// explain tells, after a failure, what the nodes had to say and what the registry was asked.
func (s *scene) explain() string {
	var text strings.Builder
	fmt.Fprintf(&text, "--- again: cd e2e && go test -run 'TestScripts/%s$' . (-testwork keeps the directory)\n", s.script)
	if s.cluster != nil {
		for _, node := range s.cluster.Nodes() {
			fmt.Fprintf(&text, "--- end of the log of %s:\n%s\n", node.Name, node.LogTail(40))
		}
	}
	if s.registry != nil {
		text.WriteString("--- asked of the registry:\n")
		for _, request := range s.registry.Ledger.Requests() {
			fmt.Fprintf(&text, "%s %s: %d\n", request.Method, request.Object, request.Status)
		}
	}
	return text.String()
}

// clusterCommand is `cluster start N [SETTINGS]`: N nodes with empty disks form a cluster that mirrors the registry, if one
// runs. Settings are more of their configuration, as YAML.
// It sets $n1, $n2, ... to the addresses of their client API, $n1_registry, ... to those of /v2/. `cluster add` starts
// one more node with an empty disk.
func (s *scene) clusterCommand(ts *testscript.TestScript, args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch {
	case (len(args) == 2 || len(args) == 3) && args[0] == "start":
		count, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		options := nodes.Options{Binary: cmp.Or(s.initial, s.binary), Dir: s.dir, Count: count, Settings: strings.Join(args[2:], "")}
		if s.registry != nil {
			options.Upstreams = []nodes.Upstream{{Name: s.name, URL: s.registry.URL()}}
		}
		if s.cluster, err = nodes.Prepare(options); err != nil {
			return err
		}
	case len(args) == 1 && args[0] == "add":
		if _, err := s.cluster.Add(); err != nil {
			return err
		}
	default:
		return errors.New("usage: cluster start N [SETTINGS] | cluster add")
	}
	for _, node := range s.cluster.Nodes() {
		ts.Setenv(node.Name, node.GRPC())
		ts.Setenv(node.Name+"_registry", node.Registry())
	}
	return s.cluster.Start(ctx)
}

// each calls act on the nodes that the arguments name: n1, n2, ..., `leader`, `follower` (one of them) or `all`.
func (s *scene) each(args []string, act func(*nodes.Node) error) error {
	if s.cluster == nil || len(args) == 0 {
		return errors.New("name a node of a started cluster, leader, follower or all")
	}
	for _, arg := range args {
		chosen, err := s.choose(arg)
		if err != nil {
			return err
		}
		for _, node := range chosen {
			if err := act(node); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *scene) choose(arg string) ([]*nodes.Node, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch arg {
	case "all":
		return s.cluster.Nodes(), nil
	case "leader":
		leader, err := s.cluster.Leader(ctx)
		return []*nodes.Node{leader}, err
	case "follower":
		leader, err := s.cluster.Leader(ctx)
		followers := slices.DeleteFunc(s.cluster.Running(), func(node *nodes.Node) bool { return node == leader })
		if err == nil && len(followers) == 0 {
			err = errors.New("no follower runs")
		}
		return followers[:min(1, len(followers))], err
	default:
		node, err := s.cluster.Node(arg)
		return []*nodes.Node{node}, err
	}
}

// sigkill is `sigkill NODE...`. It sets $killed to the name of the node, or the last of them.
func (s *scene) sigkill(ts *testscript.TestScript, args []string) error {
	return s.each(args, func(node *nodes.Node) error {
		ts.Setenv("killed", node.Name)
		return node.Kill()
	})
}

// sigterm is `sigterm NODE...`; the node must end with status 0.
func (s *scene) sigterm(ts *testscript.TestScript, args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.each(args, func(node *nodes.Node) error {
		ts.Setenv("killed", node.Name)
		return node.Terminate(ctx)
	})
}

// start is `start NODE...`: starts dead nodes, then waits until each may be asked.
func (s *scene) start(_ *testscript.TestScript, args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.each(args, (*nodes.Node).Start); err != nil {
		return err
	}
	return s.each(args, func(node *nodes.Node) error { return node.AwaitReady(ctx) })
}

// wipe is `wipe NODE...`: a dead node loses its disk.
func (s *scene) wipe(_ *testscript.TestScript, args []string) error {
	return s.each(args, (*nodes.Node).Wipe)
}

// sameCatalog is `same-catalog`: all running nodes come to hold the same catalog.
func (s *scene) sameCatalog(ts *testscript.TestScript, _ []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if s.cluster == nil {
		return errors.New("no cluster was started")
	}
	same, err := s.cluster.SameCatalog(ctx)
	if err != nil {
		return err
	}
	ts.Logf("%d nodes hold the same catalog: %s", len(s.cluster.Running()), same)
	s.held = true
	return nil
}

// published is `published`: all nodes come to know what was fetched from the registry since the last reset. Before
// that, a node that dies may take the knowledge of a fetch with it. Not for registries without the referrers API.
func (s *scene) published(*testscript.TestScript, []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.cluster.AwaitPublished(ctx, &s.registry.Ledger)
}

// led is `led`: all running nodes name one leader, and it runs.
func (s *scene) led(*testscript.TestScript, []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := s.cluster.Leader(ctx)
	return err
}

// await is `await COMMAND ARGS...`: runs one of our commands, or a program, again and again until it succeeds.
func (s *scene) await(ts *testscript.TestScript, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: await COMMAND ARGS...")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	run := ours()[args[0]]
	if run == nil {
		run = func(_ *scene, ts *testscript.TestScript, rest []string) error { return ts.Exec(args[0], rest...) }
	}
	return nodes.Await(ctx, func(context.Context) error { return run(s, ts, args[1:]) })
}

// shows is `shows PATTERN PROGRAM ARGS...`: the program succeeds, and a line of what it prints matches. Behind `await`, for
// what a cluster comes to by itself.
func (s *scene) shows(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: shows PATTERN PROGRAM ARGS...")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	if err != nil {
		return err
	}
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		return err
	}
	if printed := ts.ReadFile("stdout"); !pattern.MatchString(printed) {
		return fmt.Errorf("nothing matches %q in:\n%s", args[0], printed)
	}
	return nil
}

// exits is `exits CODE PROGRAM ARGS...`: the program ends with that status.
func (s *scene) exits(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: exits CODE PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	got, err := 0, ts.Exec(args[1], args[2:]...)
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		got, err = ended.ExitCode(), nil
	}
	if err == nil && got != want {
		err = fmt.Errorf("exit status %d, want %d", got, want)
	}
	return err
}
