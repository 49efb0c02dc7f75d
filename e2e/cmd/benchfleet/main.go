// Command benchfleet replays, in compressed time, the published test that made shared caches infamous: 10,000 pods are
// admitted by three replicas of a verifier, from 50 images with five signatures each, in front of a registry that answers
// 1,000 reads a minute and 429 to all others. Side by side, at the same time and each before a registry of its own: replicas that
// ask the registry themselves, replicas with a time-to-live cache of their own, and replicas that ask three Ocistern nodes. Then
// the same with the registry switched off for the middle third. `make bench-fleet` runs it.
//
// All times it prints are those of the fleet. A verification makes the 17 reads of package signed in their order, over
// oras-go and its own retries, and then takes the time of verifying; it must end within the admission's deadline. A replica's
// own work is a wait: here registries and caches are measured, not cryptography. Policies, retries and the limit are
// compressed as the fleet is; the work of Ocistern's nodes is not. All three share this machine with everything else, and when
// the storm begins they know nothing: fifty images come in three seconds. So a time that is compressed ten times asks ten times
// as much of them.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"path/filepath"
	"time"

	"github.com/ocistern/ocistern/e2e/command"
)

func main() { benchmark().Main() }

func benchmark() command.Command {
	return command.Command{Name: "benchfleet", Parse: func(args []string, progress io.Writer) (command.Work, error) {
		o, err := parse(args, progress)
		return func(ctx context.Context, out io.Writer) error {
			b := &bench{options: o, out: out, err: progress, begun: time.Now()}
			return b.play(ctx)
		}, err
	}}
}

// options are the flags of the command. Times are those of the fleet.
type options struct {
	ocistern, parent       string
	pods, images, replicas int
	lasting                time.Duration // within which all pods are admitted
	reads                  int           // that the registry answers in a minute
	latency                time.Duration // of the registry
	working, deadline      time.Duration // of one verification
	clock                  clock
}

// clock is compressed time.
type clock struct{ factor float64 }

// here returns how long something takes that takes d in the fleet.
func (c clock) here(d time.Duration) time.Duration { return time.Duration(float64(d) / c.factor) }

// there is the inverse.
func (c clock) there(d time.Duration) time.Duration { return time.Duration(float64(d) * c.factor) }

func parse(args []string, progress io.Writer) (options, error) {
	var o options
	var quick bool
	flags := flag.NewFlagSet("benchfleet", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.StringVar(&o.ocistern, "ocistern", filepath.Join("..", "bin", "ocistern"), "path of the ocistern `binary`")
	flags.StringVar(&o.parent, "dir", "", "existing `directory` on a disk for the data; the system's for temporary files by default")
	flags.IntVar(&o.pods, "pods", 10_000, "`number` of pods")
	flags.IntVar(&o.images, "images", 50, "`number` of different images")
	flags.IntVar(&o.replicas, "replicas", 3, "`number` of replicas of the verifier")
	flags.DurationVar(&o.lasting, "lasting", 10*time.Minute, "`time` within which all pods are admitted")
	flags.IntVar(&o.reads, "reads", 1000, "`number` of reads that the registry answers in a minute")
	flags.DurationVar(&o.latency, "latency", 50*time.Millisecond, "`time` that the registry takes for a read")
	flags.DurationVar(&o.working, "working", 2900*time.Millisecond, "`time` that a verification takes besides its reads")
	flags.DurationVar(&o.deadline, "deadline", 5*time.Second, "`time` within which an admission must be answered")
	flags.Float64Var(&o.clock.factor, "compress", 2, "`factor` by which time is compressed")
	flags.BoolVar(&quick, "quick", false, "small numbers everywhere: shows that it works, not how fast")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if quick {
		o.pods, o.images, o.lasting, o.clock.factor = 60, 3, time.Minute, 20
	}
	if o.pods < 1 || o.images < 1 || o.replicas < 1 || o.clock.factor < 1 || o.deadline <= o.working {
		return o, errors.New("there must be a pod, an image and a replica, time is not stretched, and the deadline leaves time to read")
	}
	return o, command.Binaries("bench-fleet", &o.ocistern)
}
