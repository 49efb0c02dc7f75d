package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// lastCommand ends every script: all running nodes hold the same catalog.
const lastCommand = "same-catalog"

func TestScripts(t *testing.T) {
	old := firstLevel(t.TempDir())
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"), Setup: func(env *testscript.Env) error { return setup(env, old) }, Cmds: commands(),
		RequireExplicitExec: true, RequireUniqueNames: true,
	})
}

func TestEveryScriptEndsWithTheSameCatalog(t *testing.T) {
	for path, lines := range scripts(t) {
		if last := lines[len(lines)-1]; last != lastCommand {
			t.Errorf("%s ends with %q, want %q", path, last, lastCommand)
		}
	}
}

// What nodes tell of each other is gossip: true a moment later. A script that asks once fails on a machine that is busy.
func TestScriptsAwaitWhatNodesTellOfEachOther(t *testing.T) {
	gossip := regexp.MustCompile(`\bocistern (status|members --)|^level `)
	for path, lines := range scripts(t) {
		for _, line := range lines {
			quorumless := strings.HasPrefix(line, "exits 5 ") // told by one node of itself
			if gossip.MatchString(line) && !strings.HasPrefix(line, "await ") && !quorumless {
				t.Errorf("%s: %q has no await before it", path, line)
			}
		}
	}
}

// scripts returns the lines of commands of all scripts, by path.
func scripts(t *testing.T) map[string][]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", "script", "*.txtar"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	lines := map[string][]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		commands, _, _ := strings.Cut("\n"+string(text), "\n-- ")
		lines[path] = strings.Split(strings.TrimSpace(commands), "\n")
	}
	return lines
}

// setup makes the scene of one script, and takes care that it is cleared away and explained when the script fails.
func setup(env *testscript.Env, old func() (string, error)) error {
	binary, err := filepath.Abs(os.Getenv(binaryVariable))
	if err != nil {
		return err
	}
	script := strings.TrimPrefix(filepath.Base(env.WorkDir), "script-")
	s := &scene{script: script, binary: binary, old: old, dir: filepath.Join(env.WorkDir, "nodes")}
	env.Values[sceneKey{}] = s
	bin := filepath.Join(env.WorkDir, ".bin")
	env.Setenv("PATH", bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
	env.Setenv("HOME", env.WorkDir)
	env.Defer(func() {
		if !s.held {
			env.T().Log(s.explain())
		}
		if err := s.close(); err != nil {
			env.T().Log(fmt.Sprint("clearing away: ", err))
		}
	})
	return errors.Join(os.Mkdir(s.dir, 0o755), os.Mkdir(bin, 0o755), os.Symlink(binary, filepath.Join(bin, "ocistern")))
}

// patience bounds each wait for a condition in the scripts.
const patience = time.Minute

type sceneKey struct{}

func sceneOf(ts *testscript.TestScript) *scene {
	s, ok := ts.Value(sceneKey{}).(*scene)
	if !ok {
		ts.Fatalf("the script has no scene")
	}
	return s
}

// command is a script command that tells an error instead of ending the script.
type command func(s *scene, ts *testscript.TestScript, args []string) error

// ours are the commands that the scripts may use beside testscript's own.
func ours() map[string]command {
	return map[string]command{
		"upstream": (*scene).upstreamCommand, "cluster": (*scene).clusterCommand,
		"sigkill": (*scene).sigkill, "sigterm": (*scene).sigterm, "start": (*scene).start, "wipe": (*scene).wipe,
		"damage-log": (*scene).damageLog, "voters-noted": (*scene).votersNoted, "rejoined": (*scene).rejoined,
		"damage": (*scene).damage, "intact": (*scene).intact, "absent": (*scene).absent,
		"pull": (*scene).pull, "verify": (*scene).verify, "exits": (*scene).exits, "shows": (*scene).shows,
		"version": (*scene).version, "pin": (*scene).pin, "level": (*scene).level, "load": (*scene).loadCommand,
		"published": (*scene).published, "led": (*scene).led,
		lastCommand: (*scene).sameCatalog,
	}
}

// commands are all of them, in the form of testscript. `await` is apart because it runs the others.
func commands() map[string]func(*testscript.TestScript, bool, []string) {
	adapted := map[string]func(*testscript.TestScript, bool, []string){}
	for name, run := range ours() {
		adapted[name] = adapt(name, run)
	}
	adapted["await"] = adapt("await", (*scene).await)
	return adapted
}

// adapt lets a script expect a failure (`! pull ...`) and look at its text with `stderr`.
func adapt(name string, run command) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, negated bool, args []string) {
		err := run(sceneOf(ts), ts, args)
		if err != nil {
			fmt.Fprintln(ts.Stderr(), err)
		}
		switch {
		case err != nil && !negated:
			ts.Fatalf("%s: %v", name, err)
		case err == nil && negated:
			ts.Fatalf("%s succeeded, and should not have", name)
		}
	}
}
