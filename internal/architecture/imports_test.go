package architecture

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/ocistern/ocistern/"

// rule forbids imports. A forbidden package of this module is forbidden transitively; others only in the package itself,
// since a library may use anything inside.
type rule struct {
	from      string   // package path below the module; "/..." at the end covers the packages below it as well
	forbidden []string // paths as in from, or foreign import paths as prefixes
	reason    string
}

func rules() []rule {
	return []rule{
		{"fsm/catalog", []string{"os", "io/fs", "net", "net/http", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand"},
			"the state machine does no I/O, logs nothing and draws no random numbers: every node must compute the same"},
		{"fsm/catalog", []string{module + "fsm", module + "cluster", module + "blobstore/...", module + "internal/proto/...", "github.com/hashicorp"},
			"the catalog knows neither Raft nor the wire format; package fsm translates"},
		{"fsm", []string{module + "cluster", module + "blobstore/...", module + "internal/registry", module + "internal/fill", module + "internal/rpc"},
			"data travels down: cluster -> fsm -> catalog"},
		{"blobstore/...", []string{"github.com/hashicorp", "google.golang.org/grpc", module + "cluster", module + "internal/rpc", module + "internal/fill", module + "internal/registry"},
			"content by digest needs neither Raft, gossip nor a protocol"},
		{"cluster", []string{module + "blobstore/...", module + "internal/rpc", module + "internal/fill", module + "internal/registry", module + "internal/node", "google.golang.org/grpc"},
			"consensus does not know content, and reaches peers through an interface"},
		{"internal/fill", []string{module + "internal/registry", module + "internal/rpc", module + "internal/distribution", module + "cluster"},
			"registry decides what to answer and calls fill, never the other way"},
		{"internal/egress", []string{module + "fsm/...", module + "blobstore/...", module + "cluster", module + "internal/fill", module + "internal/credential",
			"oras.land", "log/slog"},
			"the way out decides where connections go; it sees no credential, knows no registry API and logs nothing"},
		{"internal/credential", []string{module + "fsm/...", module + "blobstore/...", module + "cluster", module + "internal/fill", module + "internal/egress",
			"net", "net/http", "log/slog"},
			"secrets are read where nothing is sent, stored or logged"},
		{"internal/ownership", []string{"net", "log/slog", module + "fsm/...", module + "internal/fill"}, "nodes and clients compute owners from names alone"},
		{"internal/secretfile", []string{module + "internal/...", "log/slog"}, "reading a file that is replaced needs nothing else of the house"},
		{"internal/registry", []string{module + "internal/rpc", module + "internal/distribution", module + "cluster", "google.golang.org/grpc", "net/http"},
			"the use cases speak no protocol and know no consensus"},
		{"internal/prefetch", []string{module + "internal/rpc", module + "internal/distribution", module + "cluster", module + "internal/node"},
			"what is fetched ahead is asked as callers ask, through package registry"},
		{"internal/registry", []string{module + "internal/prefetch"}, "the use cases do not know that somebody asks ahead"},
		{"internal/distribution", []string{module + "internal/rpc", module + "cluster", module + "internal/node"},
			"the protocols do not know each other"},
		{"internal/rpc", []string{module + "internal/distribution", module + "internal/node"},
			"the protocols do not know each other"},
		{"client", []string{module + "cluster", module + "fsm/...", module + "blobstore/...", module + "internal/registry", module + "internal/fill",
			module + "internal/rpc", module + "internal/node", "github.com/hashicorp"},
			"the public library must not drag a node into its users' programs"},
		{"internal/...", []string{module + "cmd/ocistern"}, "commands are the top"},
		{"internal/policy", []string{"os", "io", "net", "log/slog", module + "fsm/...", module + "internal/config", module + "internal/fill"},
			"policy is a value: config makes it, registry and fill look at it"},
		{"internal/budget", []string{module + "fsm/...", module + "internal/fill", module + "internal/config"},
			"a budget knows requests, not what is asked nor how nodes tell each other"},
		{"internal/errdef", []string{module + "internal/reference", module + "fsm/..."}, "the table of errors is the ground floor"},
	}
}

// packageImports maps each package of this module to what it imports, tests left out.
func packageImports(t *testing.T) map[string][]string {
	t.Helper()
	var stderr bytes.Buffer
	list := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", module+"...")
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	imports := map[string][]string{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return imports
		} else if err != nil {
			t.Fatal(err)
		}
		imports[p.ImportPath] = p.Imports
	}
}

func TestForbiddenImports(t *testing.T) {
	for _, broken := range violations(packageImports(t), rules()) {
		t.Error(broken)
	}
}

// The check itself is checked: planted arrows, direct and through another package, are found.
func TestViolationsFindsPlantedImports(t *testing.T) {
	planted := map[string][]string{
		module + "fsm/catalog":        {"os"},
		module + "client":             {module + "internal/reference"},
		module + "internal/reference": {module + "cluster"},
		module + "blobstore/peer":     {"google.golang.org/grpc/codes"},
	}
	if found := violations(planted, rules()); len(found) != 3 {
		t.Errorf("want 3 violations, got %d:\n%s", len(found), strings.Join(found, "\n"))
	}
}

func violations(imports map[string][]string, rules []rule) []string {
	var found []string
	for _, r := range rules {
		for from := range imports {
			if !covers(module+r.from, from) {
				continue
			}
			for to, path := range reachable(imports, from) {
				for _, pattern := range r.forbidden {
					direct := len(path) == 2
					if covers(pattern, to) && (direct || strings.HasPrefix(to, module)) {
						found = append(found, strings.Join(path, " -> ")+": "+r.reason)
					}
				}
			}
		}
	}
	return found
}

// covers reports whether pattern names path: itself, with "/..." what is below it, and for foreign code any prefix.
func covers(pattern, path string) bool {
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == below || strings.HasPrefix(path, below+"/")
	}
	if strings.HasPrefix(pattern, module) || !strings.Contains(pattern, ".") {
		return path == pattern
	}
	return path == pattern || strings.HasPrefix(path, pattern+"/")
}

// reachable returns a path of imports to each package that from reaches through packages of this module.
func reachable(imports map[string][]string, from string) map[string][]string {
	paths := map[string][]string{}
	queue := [][]string{{from}}
	for len(queue) > 0 {
		path := queue[0]
		queue = queue[1:]
		for _, to := range imports[path[len(path)-1]] {
			if _, seen := paths[to]; seen {
				continue
			}
			paths[to] = append(append([]string(nil), path...), to)
			if strings.HasPrefix(to, module) {
				queue = append(queue, paths[to])
			}
		}
	}
	return paths
}
