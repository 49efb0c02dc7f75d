// Command demo shows the main job of Ocistern on one machine: sixty verifiers verify a signed image through three
// nodes, while the leader is killed and the registry is stopped. `make demo` runs it.
//
// Everything is real: the registry is go-containerregistry's, the signatures are made and verified by notation-go, the
// nodes are `ocistern serve` processes. Each step prints one line with what was measured; the exit status is 0 only
// when every step held.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ocistern/ocistern/e2e/command"
)

func main() {
	command.Main(func(ctx context.Context) int { return run(ctx, os.Args[1:], newScreen(os.Stdout, os.Stderr)) })
}

// options are the flags of the command.
type options struct {
	binary    string
	verifiers int
	latency   time.Duration
	keep      bool
}

func run(ctx context.Context, args []string, show *screen) int {
	o, err := parse(args, show)
	if errors.Is(err, flag.ErrHelp) {
		return command.Done
	}
	if err != nil {
		return command.Usage // flag has said what is wrong
	}
	dir, err := os.MkdirTemp("", "ocistern-demo-")
	if err != nil {
		show.failure(err)
		return command.Error
	}
	d := &demo{options: o, dir: dir, show: show}
	err = errors.Join(d.play(ctx), d.close())
	show.calm()
	switch {
	case ctx.Err() != nil:
		show.note("interrupted: the nodes and the registry are stopped, the data removed")
		return remove(dir, show, command.Interrupted)
	case err != nil:
		show.failure(err)
		show.note("logs and data are kept in " + dir)
		return command.Error
	case o.keep:
		show.note("logs and data are kept in " + dir)
		return command.Done
	default:
		return remove(dir, show, command.Done)
	}
}

// remove removes the demo's directory and returns code, or what a failure to do so deserves.
func remove(dir string, show *screen, code int) int {
	if err := os.RemoveAll(dir); err != nil {
		show.failure(err)
		return command.Error
	}
	return code
}

func parse(args []string, show *screen) (options, error) {
	binary := os.Getenv("OCISTERN_BIN")
	if binary == "" {
		binary = filepath.Join("..", "bin", "ocistern")
	}
	var o options
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(show.err)
	flags.StringVar(&o.binary, "ocistern", binary, "path of the ocistern `binary`; OCISTERN_BIN sets the default")
	flags.IntVar(&o.verifiers, "verifiers", 60, "`number` of verifiers, spread over three nodes")
	flags.DurationVar(&o.latency, "latency", 10*time.Millisecond, "`time` the registry takes to answer")
	flags.BoolVar(&o.keep, "keep", false, "keep logs and data when all is well")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	absolute, err := filepath.Abs(o.binary)
	if err == nil {
		_, err = os.Stat(absolute)
	}
	if err != nil {
		err = fmt.Errorf("no ocistern binary: %w (run `make build`, or name it with -ocistern)", err)
		show.failure(err)
		return options{}, err
	}
	if o.verifiers < nodeCount {
		err = fmt.Errorf("%d verifiers are fewer than the %d nodes", o.verifiers, nodeCount)
		show.failure(err)
		return options{}, err
	}
	o.binary = absolute
	return o, nil
}
