package catalog_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

var update = flag.Bool("update", false, "write what the scripts print into testdata instead of comparing")

// TestScripts runs the scripts in testdata/scripts. A script is a list of blocks: lines that start with # are
// comments, each other line is one step, and what the steps print follows a line of four dashes, up to an empty line.
// The words of the steps are the keys of the maps in (*script).run; digests are written as short names and printed as
// such.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			compareLines(t, file, got, string(want))
		})
	}
}

// runScript returns the script with the output that its steps gave now.
func runScript(t *testing.T, text string) string {
	t.Helper()
	s := &script{catalog: catalog.New(), names: map[digest.Digest]string{}}
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		steps, _, runs := strings.Cut(strings.TrimSpace(block), "\n----")
		out.WriteString(steps + "\n")
		if runs {
			out.WriteString("----\n")
			for line := range strings.SplitSeq(steps, "\n") {
				if strings.HasPrefix(line, "#") {
					continue
				}
				printed, err := s.run(strings.Fields(line))
				if err != nil {
					printed = fmt.Sprintf("error %s: %v", errdef.ReasonOf(err), err)
				}
				out.WriteString(s.withNames(strings.TrimSpace(printed)) + "\n")
			}
		}
		out.WriteString("\n")
	}
	return strings.TrimSpace(out.String()) + "\n"
}

func compareLines(t *testing.T, file, got, want string) {
	t.Helper()
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		if i >= len(gotLines) || i >= len(wantLines) || gotLines[i] != wantLines[i] {
			line := func(lines []string) string { return strings.Join(lines[min(i, len(lines)):min(i+1, len(lines))], "") }
			t.Fatalf("%s:%d:\n got %q\nwant %q", file, i+1, line(gotLines), line(wantLines))
		}
	}
}

// script is the state of one run.
type script struct {
	catalog *catalog.Catalog
	index   catalog.LogIndex
	names   map[digest.Digest]string
}

// run executes one step: a command, or a question about the present snapshot.
func (s *script) run(words []string) (string, error) {
	commands := map[string]func(arguments) catalog.Command{
		"cluster": func(a arguments) catalog.Command { return catalog.SetCluster{ClusterID: a.word(0)} },
		"publish": s.publish, "absent": s.recordAbsence, "hold": s.addHolder, "drop": s.removeHolder,
		"untag": s.untag, "delete": s.deleteManifest, "invalidate": s.invalidate, "backoff": s.setBackoff, "raise": s.raise,
	}
	questions := map[string]func(arguments) string{
		"tag": s.showTag, "tags": s.showTags, "manifest": s.showManifest, "referrers": s.showReferrers,
		"absence": s.showAbsence, "link": s.showLink, "blob": s.showBlob, "stats": s.showStats, "records": s.showRecords,
		"history": s.showHistory, "invalidated": s.showInvalidated, "until": s.showBackoff,
	}
	a := parseArguments(words[1:])
	if build, ok := commands[words[0]]; ok {
		s.index++
		err := s.catalog.Apply(catalog.Entry{Index: s.index, Command: build(a)})[0].Err
		return "ok", err
	}
	if ask, ok := questions[words[0]]; ok {
		return ask(a), nil
	}
	if words[0] == "restore" {
		return "ok", s.restore()
	}
	return "", errdef.New(errdef.UsageInvalid, "no step is called %s", words[0])
}

// restore goes on with a second catalog, made from the records of the first.
func (s *script) restore() error {
	before := s.catalog.Snapshot()
	restored, err := restoredFrom(before)
	if err != nil {
		return err
	}
	was, now := digestOf(before), digestOf(restored.Snapshot())
	if was != now {
		return errdef.New(errdef.DigestMismatch, "the restored catalog has digest %s, not %s", now, was)
	}
	s.catalog = restored
	return nil
}

// digest returns the digest that a script calls by name.
func (s *script) digest(name string) digest.Digest {
	if name == "" {
		return ""
	}
	dgst := digest.FromString(name)
	s.names[dgst] = name
	return dgst
}

func (s *script) withNames(text string) string {
	for dgst, name := range s.names {
		text = strings.ReplaceAll(text, dgst.String(), name)
	}
	return text
}
