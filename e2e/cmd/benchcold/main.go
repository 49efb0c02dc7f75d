// Command benchcold measures what a cache costs, or saves, when it knows nothing yet: three Ocistern nodes between a verifier
// and a registry that is 10 ms and 200 MB/s away, against the verifier that asks the registry itself. `make bench-cold` runs
// it.
//
// A verification is the one of package signed: 17 operations in sequence for an image with five signatures, with
// notation-go's cryptography. Each round has content of its own, that no node has seen, and a client of its own, which is at one
// of the nodes; the ways take turns, each when the others are at rest, and the medians are compared. Beside them stand the same
// again, when the nodes know it, and a proxy that does nothing: what any process in between costs on this machine. The registry is
// go-containerregistry's, in a process of its own, which also makes its latency and the speed of its link. Then the same without
// latency and with a link as fast as loopback.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/ocistern/ocistern/e2e/command"
	"github.com/ocistern/ocistern/e2e/figure"
	"github.com/ocistern/ocistern/e2e/signed"
)

func main() {
	for variable, serve := range map[string]func(string, io.Reader, io.Writer) error{
		registryVariable: serveRegistry, proxyVariable: serveProxy,
	} {
		if settings := os.Getenv(variable); settings != "" {
			if err := serve(settings, os.Stdin, os.Stdout); err != nil {
				fmt.Fprintf(os.Stderr, "benchcold: %s: %v\n", variable, err)
				os.Exit(command.Error)
			}
			return
		}
	}
	benchmark().Main()
}

func benchmark() command.Command {
	return command.Command{Name: "benchcold", Parse: func(args []string, progress io.Writer) (command.Work, error) {
		o, err := parse(args, progress)
		return func(ctx context.Context, out io.Writer) error {
			b := &bench{options: o, table: figure.Table{Out: out}, err: progress, begun: time.Now()}
			return errors.Join(b.play(ctx), b.close())
		}, err
	}}
}

func (b *bench) close() error {
	if b.dir == "" {
		return nil
	}
	return os.RemoveAll(b.dir)
}

// options are the flags of the command.
type options struct {
	ocistern, parent    string
	rounds, layerRounds int
	warming             int // rounds that do not count
	layerBytes          int
	revalidations       int
	match               *regexp.Regexp // of the figures that are wanted; nil for all
}

// bench is one run.
type bench struct {
	options
	dir      string
	signers  []*signed.Signer
	verifier *signed.Verifier
	table    figure.Table
	err      io.Writer
	begun    time.Time
}

// link is how far away the registry is, and what may be asked of a cache before it.
type link struct {
	name                 string
	latency              time.Duration
	bytesPerSecond       int64
	verification, single float64 // at most so many times what it takes directly
}

func links() []link {
	return []link{
		{"", 10 * time.Millisecond, 200e6, 0.6, 1.15},
		{"loopback-", 0, 0, 2, 2},
	}
}

// play measures. Failing to reach a target is no error.
func (b *bench) play(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp(b.parent, "ocistern-bench-"); err != nil {
		return err
	}
	for i := range signatures {
		signer, err := signed.NewSigner(fmt.Sprintf("signer %d", i+1))
		if err != nil {
			return err
		}
		b.signers = append(b.signers, signer)
	}
	if b.verifier, err = signed.NewVerifier(b.signers...); err != nil {
		return err
	}
	for _, l := range links() {
		if err := b.small(ctx, l); err != nil {
			return err
		}
		if b.wanted(l.name + "layer") {
			if err := b.layers(ctx, l); err != nil {
				return err
			}
		}
	}
	if b.table.Empty() {
		return fmt.Errorf("no figure matches %s", b.match)
	}
	b.table.Close()
	return nil
}

func (b *bench) wanted(figure string) bool { return b.match == nil || b.match.MatchString(figure) }

// signatures is how many an image has: 2+3n operations.
const signatures = 5

func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(b.err, "%7.1fs  %s\n", time.Since(b.begun).Seconds(), fmt.Sprintf(format, args...))
}

func parse(args []string, progress io.Writer) (options, error) {
	var o options
	var quick bool
	flags := flag.NewFlagSet("benchcold", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.StringVar(&o.ocistern, "ocistern", filepath.Join("..", "bin", "ocistern"), "path of the ocistern `binary`")
	flags.StringVar(&o.parent, "dir", "", "existing `directory` on a disk for the data; the system's for temporary files by default")
	flags.IntVar(&o.rounds, "rounds", 21, "`number` of verifications and manifests of which the median counts")
	flags.IntVar(&o.layerRounds, "layer-rounds", 5, "`number` of layers of which the median counts")
	flags.IntVar(&o.layerBytes, "layer-bytes", 1_000_000_000, "size of a layer")
	flags.IntVar(&o.revalidations, "revalidations", 300, "`number` of answers that are revalidated in the background")
	flags.Func("match", "measure only the figures that match this `regexp`", func(text string) (err error) {
		o.match, err = regexp.Compile(text)
		return err
	})
	flags.BoolVar(&quick, "quick", false, "small numbers everywhere: shows that it works, not how fast")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.warming = 3
	if quick {
		o.warming = 0
		o.rounds, o.layerRounds, o.layerBytes, o.revalidations = 1, 1, 1_000_000, 3
	}
	return o, command.Binaries("bench-cold", &o.ocistern)
}
