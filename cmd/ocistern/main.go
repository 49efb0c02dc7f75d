// Command ocistern is all of Ocistern in one binary: it runs nodes, and reads through them.
//
// It parses flags, calls packages and prints; whatever can be decided elsewhere is. Data go to standard output, logs,
// progress and errors to standard error, and the exit code is the one of the error's reason (package errdef).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ocistern/ocistern/internal/errdef"
)

// version is set by the linker (see Makefile).
var version = "dev"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns its exit code. The first signal ends it in order, a second one at once.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteContextC(ctx)
	if err != nil {
		report(stderr, command, err)
	}
	return errdef.ExitCode(err)
}

// report says what was wrong and what to do next, unless the command has logged it already.
func report(stderr io.Writer, command *cobra.Command, err error) {
	if errors.As(err, new(loggedError)) {
		return
	}
	var typed *errdef.Error
	if !errors.As(err, &typed) || typed.Remedy == "" {
		fmt.Fprintf(stderr, "%s: %v\n", command.CommandPath(), err)
		return
	}
	fmt.Fprintf(stderr, "%s: %v\n  next: %s\n", command.CommandPath(), typed.WithRemedy(""), typed.Remedy)
}
