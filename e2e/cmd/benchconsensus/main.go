// Command benchconsensus measures three Ocistern nodes against three etcd members, all processes of one machine with
// their data on one disk, and prints one line a figure. `make bench-consensus` runs it.
//
// A write of etcd is a Put of a value of 512 bytes through clientv3. Ocistern's is one command of at least that size which
// observes one tag, submitted to the leader's peer API, since users cannot write yet: that is the way on which a
// follower's commands come. Both are sent to the leader, over the same number of gRPC connections (one for each client,
// 8 at most), and overwrite 10,000 keys in random order. A linearizable read of etcd is a Range of one key; Ocistern's is
// the public client's Resolve of one tag, as users call it, with a descriptor that brings the same bytes.
//
// Both keep fsync on and their defaults. They work in turn, round by round, and the medians are compared: only ratios of
// one run mean anything. The programs that make the load share the machine with both.
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
	"slices"
	"strings"
	"time"

	"github.com/ocistern/ocistern/e2e/command"
	"github.com/ocistern/ocistern/e2e/figure"
)

// nodeCount is the number of nodes of either system.
const nodeCount = 3

func main() { benchmark().Main() }

func benchmark() command.Command {
	return command.Command{Name: "benchconsensus", Parse: func(args []string, progress io.Writer) (command.Work, error) {
		o, err := parse(args, progress)
		return func(ctx context.Context, out io.Writer) error {
			b := &bench{options: o, table: figure.Table{Out: out}, err: progress, begun: time.Now()}
			return errors.Join(b.play(ctx), b.close())
		}, err
	}}
}

// bench is one run.
type bench struct {
	options
	dir  string
	ours *ocistern
	peer peer

	table figure.Table
	err   io.Writer
	begun time.Time
}

// options are the flags of the command.
type options struct {
	ocistern, etcdnode, parent string
	against                    string
	only                       []string
	match                      *regexp.Regexp
	rounds                     int
	length                     time.Duration
	kills, transfers, records  int
	writers, snapshots         int // writers during snapshots, and nodes that must take one
	quick, keep                bool
}

// part is one group of figures.
type part struct {
	name string
	run  func(*bench, context.Context) error
}

func parts() []part {
	return []part{
		{"commits", (*bench).commits},
		{"reads", (*bench).reads},
		{"failover", (*bench).failover},
		{"million", (*bench).million},
	}
}

// play starts what is needed and measures. Failing to reach a target is no error.
func (b *bench) play(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp(b.parent, "ocistern-bench-"); err != nil {
		return err
	}
	if !b.quick { // which shows nothing about a disk
		if err := requireDisk(b.dir); err != nil {
			return err
		}
	}
	if err := b.measureDisk(); err != nil {
		return err
	}
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if b.ours, err = startOcistern(starting, b.ocistern, b.dir); err != nil {
		return fmt.Errorf("start Ocistern: %w", err)
	}
	if b.peer, err = b.startPeer(starting); err != nil {
		return fmt.Errorf("start the peer: %w", err)
	}
	for _, p := range parts() {
		if slices.Contains(b.only, p.name) {
			if err := p.run(b, ctx); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	b.table.Close()
	return nil
}

// startPeer starts etcd, or another build of Ocistern.
func (b *bench) startPeer(ctx context.Context) (peer, error) {
	dir := filepath.Join(b.dir, "peer")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if b.against != "" {
		return startOcistern(ctx, b.against, dir)
	}
	return startEtcd(ctx, b.etcdnode, dir)
}

// peer is what Ocistern is measured against.
type peer interface {
	system
	close() error
}

// startTime bounds the start of both systems.
const startTime = time.Minute

func (b *bench) close() error {
	var failures []error
	if b.ours != nil {
		failures = append(failures, b.ours.close())
	}
	if b.peer != nil {
		failures = append(failures, b.peer.close())
	}
	if b.keep {
		b.progress("logs and data are kept in %s", b.dir)
	} else if b.dir != "" {
		failures = append(failures, os.RemoveAll(b.dir))
	}
	return errors.Join(failures...)
}

func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(b.err, "%7.1fs  %s\n", time.Since(b.begun).Seconds(), fmt.Sprintf(format, args...))
}

func parse(args []string, progress io.Writer) (options, error) {
	var o options
	var only, match string
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	flags := flag.NewFlagSet("benchconsensus", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.StringVar(&o.ocistern, "ocistern", filepath.Join("..", "bin", "ocistern"), "path of the ocistern `binary`")
	flags.StringVar(&o.etcdnode, "etcdnode", filepath.Join("..", "bin", "etcdnode"), "path of the etcdnode `binary`")
	flags.StringVar(&o.against, "against", "", "`binary` of another build of ocistern, to measure against in etcd's place")
	flags.StringVar(&o.parent, "dir", "", "existing `directory` on a disk for the data; the system's for temporary files by default")
	flags.StringVar(&only, "only", strings.Join(names, ","), "`parts` to measure")
	flags.StringVar(&match, "match", "", "`expression` for the figures of commits and reads to measure")
	flags.IntVar(&o.rounds, "rounds", 5, "`number` of rounds of which the median counts")
	flags.DurationVar(&o.length, "length", 5*time.Second, "`time` of one round")
	flags.IntVar(&o.kills, "kills", 50, "`number` of leaders to kill")
	flags.IntVar(&o.transfers, "transfers", 10, "`number` of leaders to terminate")
	flags.IntVar(&o.records, "records", 1_000_000, "`number` of records to fill the catalog with")
	flags.BoolVar(&o.quick, "quick", false, "small numbers everywhere: shows that it works, not how fast")
	flags.BoolVar(&o.keep, "keep", false, "keep logs and data")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	if o.match, err = regexp.Compile(match); err != nil {
		return o, fmt.Errorf("-match: %w", err)
	}
	o.writers, o.snapshots = 64, nodeCount
	if o.quick {
		o.writers, o.snapshots = 4, 1
		o.rounds, o.length = 1, 300*time.Millisecond
		o.kills, o.transfers, o.records = 1, 1, 20_000
	}
	for _, name := range strings.Split(only, ",") {
		if !slices.Contains(names, name) {
			return o, fmt.Errorf("-only: no part is named %q (%s)", name, strings.Join(names, ", "))
		}
		o.only = append(o.only, name)
	}
	return o, command.Binaries("bench-consensus", &o.ocistern, &o.etcdnode)
}
