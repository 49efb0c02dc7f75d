// Package command is how the commands of this module begin and end: signals, usage, exit codes, and where their binaries are. It
// knows nothing of what they do. The benchmarks and the demo use it.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// Exit codes, those of `ocistern` (plan, section 10).
const (
	Done        = 0
	Error       = 1
	Usage       = 2
	Interrupted = 130
)

// Work is what a command does, until it has done it or ctx ends. It prints its results to out.
type Work func(ctx context.Context, out io.Writer) error

// Command is one benchmark.
type Command struct {
	Name string
	// Parse reads the arguments. The work may print to progress how it comes on. flag.ErrHelp says that usage was printed, and
	// no more is wanted.
	Parse func(args []string, progress io.Writer) (Work, error)
}

// Main runs the command as a process, and does not return.
func (c Command) Main() {
	Main(func(ctx context.Context) int { return c.Run(ctx, os.Args[1:], os.Stdout, os.Stderr) })
}

// Main exits with the code that run returns. ctx ends with SIGINT and SIGTERM.
func Main(run func(ctx context.Context) int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx)
	stop()
	os.Exit(code)
}

// Run runs the command with arguments and returns its exit code. Errors go to progress.
func (c Command) Run(ctx context.Context, args []string, out, progress io.Writer) int {
	work, err := c.Parse(args, progress)
	if errors.Is(err, flag.ErrHelp) {
		return Done
	}
	if err != nil {
		fmt.Fprintf(progress, "%s: %v\n", c.Name, err)
		return Usage
	}
	err = work(ctx, out)
	switch {
	case ctx.Err() != nil:
		return Interrupted
	case err != nil:
		fmt.Fprintf(progress, "%s: could not measure: %v\n", c.Name, err)
		return Error
	default:
		return Done
	}
}

// Binaries makes the paths of binaries absolute. It fails where one is missing, and says what makes it.
func Binaries(target string, paths ...*string) error {
	for _, path := range paths {
		absolute, err := filepath.Abs(*path)
		if err == nil {
			_, err = os.Stat(absolute)
		}
		if err != nil {
			return fmt.Errorf("a binary is missing: %w (run `make %s`)", err, target)
		}
		*path = absolute
	}
	return nil
}
