package command_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ocistern/ocistern/e2e/command"
)

func TestExitCodes(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	works := func(err error) command.Work {
		return func(_ context.Context, out io.Writer) error {
			_, printed := io.WriteString(out, "figure\n")
			return errors.Join(err, printed)
		}
	}
	for name, c := range map[string]struct {
		ctx    context.Context
		parsed error
		worked error
		want   int
		says   string
		prints string
	}{
		"done":        {t.Context(), nil, nil, command.Done, "", "figure\n"},
		"help":        {t.Context(), flag.ErrHelp, nil, command.Done, "", ""},
		"usage":       {t.Context(), errors.New("no such flag"), nil, command.Usage, "bench: no such flag\n", ""},
		"failed":      {t.Context(), nil, errors.New("no disk"), command.Error, "bench: could not measure: no disk\n", "figure\n"},
		"interrupted": {ended, nil, context.Canceled, command.Interrupted, "", "figure\n"},
	} {
		var out, progress bytes.Buffer
		bench := command.Command{Name: "bench", Parse: func([]string, io.Writer) (command.Work, error) { return works(c.worked), c.parsed }}
		if got := bench.Run(c.ctx, nil, &out, &progress); got != c.want || progress.String() != c.says || out.String() != c.prints {
			t.Errorf("%s: exit code %d, %q and %q, want %d, %q and %q", name, got, out.String(), progress.String(), c.want, c.prints, c.says)
		}
	}
}

func TestBinaries(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("here", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	here, gone := "here", "gone"
	if err := command.Binaries("bench", &here); err != nil || here != filepath.Join(dir, "here") {
		t.Errorf("%q, %v", here, err)
	}
	if err := command.Binaries("bench", &here, &gone); err == nil || !strings.Contains(err.Error(), "make bench") {
		t.Errorf("a binary that is missing: %v", err)
	}
}
