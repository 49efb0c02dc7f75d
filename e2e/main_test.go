package e2e

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	oras "oras.land/oras/cmd/oras/root"

	"github.com/ocistern/ocistern/e2e/nodes"
)

// binaryVariable names a ready ocistern binary, instead of building one. The demo understands it too.
const binaryVariable = "OCISTERN_BIN"

func TestMain(m *testing.M) {
	testscript.Main(withBinary{m}, map[string]func(){"oras": runORAS})
}

// withBinary builds the ocistern binary once, before the first test runs.
type withBinary struct{ tests *testing.M }

// Run implements testscript.TestingM.
func (w withBinary) Run() int {
	if os.Getenv(binaryVariable) != "" {
		return w.tests.Run()
	}
	dir, err := os.MkdirTemp("", "ocistern-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	binary, err := nodes.Build(context.Background(), "..", dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := os.Setenv(binaryVariable, binary); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return w.tests.Run()
}

// runORAS is the oras command line: the test binary starts itself under that name.
func runORAS() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := oras.New().ExecuteContext(ctx); err != nil {
		os.Exit(1) // oras has printed why
	}
}
