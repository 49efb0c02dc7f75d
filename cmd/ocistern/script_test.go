package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ocistern/ocistern/internal/devcluster"
	"github.com/ocistern/ocistern/internal/errdef"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
	"github.com/ocistern/ocistern/internal/testnode"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ocistern": main})
}

// TestScripts runs testdata/script: the real command line against three test nodes, n1 to n3, that mirror
// up.test/org/app:v1 with two signatures. $N1 to $N3 are their addresses. UPDATE_SCRIPTS=1 rewrites the golden texts.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup:               setUp,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      exits,
			"node":       func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(stageOf(ts).node(args)) },
			"devcluster": rememberDevCluster,
			"see":        func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(stageOf(ts).see(args)) },
		},
	})
}

// exits runs a command and checks its exit code: exits CODE PROGRAM ARGUMENTS...
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// rememberDevCluster leaves the note of a dev cluster: devcluster FILE ADDRESSES...
func rememberDevCluster(ts *testscript.TestScript, _ bool, args []string) {
	var endpoints devcluster.Endpoints
	for _, address := range args[1:] {
		endpoints.Nodes = append(endpoints.Nodes, devcluster.Node{GRPC: address})
	}
	ts.Check(os.MkdirAll(filepath.Dir(args[0]), 0o700))
	ts.Check(devcluster.Write(args[0], endpoints))
	pointer := devcluster.Pointer(filepath.Join(ts.Getenv("XDG_CACHE_HOME"), "ocistern", "dev.json"))
	ts.Check(pointer.Remember(args[0]))
}

// stage is what one script plays on.
type stage struct {
	nodes    map[string]*testnode.Node
	statuses map[string]*registryv1.GetStatusResponse
	arrived  chan struct{} // one token when a call has come to hang
}

type stageKey struct{}

func stageOf(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

func setUp(env *testscript.Env) error {
	cluster := testnode.NewCluster()
	cluster.SetIndex(42)
	image, err := cluster.PushSigned(context.Background(), "up.test/org/app", "v1", []byte("layer"), 2)
	if err != nil {
		return err
	}
	s := &stage{nodes: map[string]*testnode.Node{}, statuses: map[string]*registryv1.GetStatusResponse{}}
	for i, name := range []string{"n1", "n2", "n3"} {
		node, err := testnode.Run(name, cluster)
		if err != nil {
			return err
		}
		env.Defer(node.Stop)
		s.nodes[name] = node
		s.statuses[name] = wholeStatus(i)
		node.SetStatus(s.statuses[name])
		env.Setenv(fmt.Sprintf("N%d", i+1), node.Address)
	}
	env.Setenv("IMAGE", image.Digest.String())
	snapshot, err := filepath.Abs(filepath.Join("..", "..", "fsm", "testdata", "snapshot.v1.pb"))
	if err != nil {
		return err
	}
	env.Setenv("SNAPSHOT", snapshot)
	env.Setenv("HOME", env.WorkDir)
	env.Values[stageKey{}] = s
	return nil
}

// wholeStatus is the view of node i of a cluster in which all is well.
func wholeStatus(i int) *registryv1.GetStatusResponse {
	status := &registryv1.GetStatusResponse{
		Version: "v9", ClusterId: "c-1", Leader: "id2", Term: 3, FeatureLevel: 2, SupportedFeatureLevel: 2,
		Catalog: &registryv1.Catalog{
			Index: 42, Tags: 1, Manifests: 3, ReferrersLists: 3, Blobs: 4, Links: 4,
			CommandHash: "0123456789abcdef0123", Digest: "sha256:feed",
			Comparison: &registryv1.Comparison{Index: 40, Voters: 3, Told: 3, Equal: 3},
		},
		Content:   &registryv1.Content{Blobs: 7, Bytes: 3 << 20, MemoryBytes: 1500},
		Upstreams: []*registryv1.Upstream{{Name: "up.test", Url: "http://127.0.0.1:1", Requests: uint64(i + 1)}},
	}
	for n := 1; n <= 3; n++ {
		status.Members = append(status.Members, &registryv1.Member{
			Id: fmt.Sprintf("id%d", n), Name: fmt.Sprintf("n%d", n), Role: "voter", State: "alive", Leader: n == 2,
			RaftAddress: fmt.Sprintf("r%d:5040", n), GrpcAddress: fmt.Sprintf("g%d:5010", n),
			RegistryAddress: fmt.Sprintf("h%d:5000", n),
		})
	}
	self := status.GetMembers()[i]
	status.Node = &registryv1.Member{Id: self.GetId(), Name: self.GetName(), Role: "voter", AppliedIndex: 42}
	return status
}

// node changes one node: node stop|start|lie|hang NAME, node fail NAME REASON. node await NAME waits until a call hangs.
func (s *stage) node(args []string) error {
	node := s.nodes[args[1]]
	switch args[0] {
	case "stop":
		node.Stop()
	case "start":
		return node.Restart()
	case "fail":
		node.Intercept(testnode.Failing(errdef.Reason(args[2])))
	case "hang":
		arrived := make(chan struct{}, 1)
		s.arrived = arrived
		node.Intercept(func(ctx context.Context, call testnode.Call) error {
			select {
			case arrived <- struct{}{}:
			default:
			}
			return testnode.Hanging(ctx, call)
		})
	case "await": // a call that hangs
		<-s.arrived
	case "lie":
		node.Alter(testnode.FlipLast)
	default:
		return fmt.Errorf("node %s is not known", args[0])
	}
	return nil
}

// see changes what all nodes report: see member NAME STATE, see address NAME (its real one), see level N, see no-leader, see
// disputed, see diverged NAME, see notice NAME TEXT.
func (s *stage) see(args []string) error {
	for name, status := range s.statuses {
		switch args[0] {
		case "member":
			for _, member := range status.GetMembers() {
				if member.GetName() == args[1] {
					member.State = args[2]
				}
			}
		case "address":
			for _, member := range status.GetMembers() {
				if member.GetName() == args[1] {
					member.GrpcAddress = s.nodes[args[1]].Address
				}
			}
		case "level":
			status.FeatureLevel = uint32(args[1][0] - '0')
		case "full":
			status.Content.Full = name == args[1]
		case "notice":
			status.Notices = nil
			if name == args[1] {
				status.Notices = []string{args[2]}
			}
		case "no-leader":
			status.Leader = ""
		case "disputed":
			status.Catalog.Comparison = &registryv1.Comparison{Index: 41, Voters: 3, Told: 2, Equal: 1, Disputed: true}
		case "diverged":
			if name == args[1] {
				status.Catalog.CommandHash = "fedcba9876543210fedc"
			}
		default:
			return fmt.Errorf("see %s is not known", args[0])
		}
		s.nodes[name].SetStatus(status)
	}
	return nil
}
