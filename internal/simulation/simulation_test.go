package simulation

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	firstSeed = flag.Uint64("sim.seed", 0, "first seed; 0 chooses by the clock")
	runs      = flag.Int("sim.runs", 2, "seeds at least")
	enough    = flag.Duration("sim.time", 0, "further seeds, as long as less than this has passed")
	hours     = flag.Float64("sim.hours", 0.2, "simulated hours of each run")
	only      = flag.String("sim.fault", "", "break only this; empty for everything")
	planted   = flag.String("sim.bug", "", "bug to plant: each seed that finds it fails")
	verbose   = flag.Bool("sim.log", false, "say what the nodes say")
)

// TestSimulation runs fresh seeds. `make test` has it run for minutes, `make sim SEED=... RUNS=...` as often as you like.
func TestSimulation(t *testing.T) {
	if *firstSeed == 0 {
		*firstSeed = uint64(time.Now().UnixNano() / 1000)
	}
	began, next := time.Now(), atomic.Uint64{}
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) { // a bubble keeps one processor busy
		workers.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= uint64(*runs) && time.Since(began) >= *enough {
					return
				}
				t.Run(fmt.Sprint(*firstSeed+i), func(t *testing.T) { runSeed(t, *firstSeed+i) })
			}
		})
	}
	workers.Wait()
	t.Logf("%d seeds in %s", next.Load()-uint64(runtime.GOMAXPROCS(0)), time.Since(began).Round(time.Second))
}

func runSeed(t *testing.T, seed uint64) {
	began, o := time.Now(), options(t, seed, Bug(*planted))
	said := sayInto(t, &o)
	r := simulate(t, o)
	t.Logf("seed %d: %s: %s", seed, time.Since(began).Round(time.Millisecond), r)
	if r.Undecided {
		t.Errorf("linearizability was not decided in %s\nlog: %s\nagain: make sim SEED=%d RUNS=1", checkLimit, said, seed)
	}
	if len(r.Failures) == 0 {
		if said != "" && !r.Undecided {
			if err := os.Remove(said); err != nil {
				t.Error(err)
			}
		}
		return
	}
	picture := filepath.Join(os.TempDir(), fmt.Sprintf("ocistern-sim-%d.html", seed))
	if err := r.Draw(picture); err != nil {
		t.Error(err)
	}
	t.Errorf("%s\nhistory: %s\nlog: %s\nagain: make sim SEED=%d RUNS=1", strings.Join(r.Failures, "\n"), picture, said, seed)
}

// sayInto has the nodes say what they say into a file, and returns its path; empty when it is said elsewhere. A seed leaves
// something to the scheduler: what failed once in thousands of runs must be understood from this one.
func sayInto(t *testing.T, o *Options) string {
	t.Helper()
	if o.Log != nil {
		return ""
	}
	file, err := os.Create(filepath.Join(os.TempDir(), fmt.Sprintf("ocistern-sim-%d.log", o.Seed)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	o.Log = file
	return file.Name()
}

// TestPlantedBugs replays seeds that find a bug when it is planted: the checks are checked. A seed leaves something to the
// scheduler, and therefore may miss; that all of a bug do, tells that the simulation has become blind for it.
func TestPlantedBugs(t *testing.T) {
	if raced {
		t.Skip("replayed without the race detector, by make sim")
	}
	for _, c := range []struct {
		bug   Bug
		fault string
		seeds []uint64
	}{
		{LostSync, "", []uint64{2, 3, 4}},
		{ReusedID, "", []uint64{1, 2, 3}},
		{Forgetful, "crash of the leader", []uint64{1, 2, 3, 4, 6, 7}},
		{StaleLeader, "isolated leader", []uint64{54, 61, 62, 55, 15, 17}},
	} {
		t.Run(string(c.bug), func(t *testing.T) {
			t.Parallel()
			for _, seed := range c.seeds {
				o := options(t, seed, c.bug)
				o.Duration, o.Fault = time.Hour, c.fault
				if r := simulate(t, o); len(r.Failures) > 0 {
					t.Logf("seed %d found: %q", seed, r.Failures[:min(len(r.Failures), 3)])
					return
				}
			}
			t.Errorf("seeds %d found nothing\nlook for others: make sim RUNS=200 BUG='%s' FAULT='%s'", c.seeds, c.bug, c.fault)
		})
	}
}

func options(t *testing.T, seed uint64, bug Bug) Options {
	o := Options{
		Seed: seed, Duration: time.Duration(*hours * float64(time.Hour)), Voters: 3, Replicas: 1, Clients: 6, Planted: bug,
		Fault: *only, Dir: t.TempDir(),
	}
	if *verbose {
		o.Log = os.Stderr
	}
	return o
}

func simulate(t *testing.T, o Options) (result *Result) {
	t.Helper()
	bubble := ""
	func() {
		defer func() { forgiveRaft(t, recover(), bubble) }()
		synctest.Test(t, func(*testing.T) {
			bubble = bubbleOf(headOf(stacks(false)))
			result = Run(o)
		})
	}()
	result.Judge()
	return result
}

// forgiveRaft lets a bubble end in which raft has left goroutines: some wait for futures that a raft which shuts down does not
// answer any more, some for a leadership transfer that was interrupted (hashicorp/raft issue 696). All others must have ended.
func forgiveRaft(t *testing.T, ended any, bubble string) {
	t.Helper()
	if ended == nil {
		return
	}
	if bubble == "" {
		panic(ended)
	}
	var left []string
	for _, stack := range strings.Split(stacks(true), "\n\n") {
		head := headOf(stack)
		if bubbleOf(head) != bubble || strings.Contains(head, "[synctest.Run") || strings.Contains(head, "[running") {
			continue // another bubble, or the bubble itself
		}
		if !slices.ContainsFunc(leftByRaft, func(known string) bool { return strings.Contains(stack, known) }) {
			left = append(left, stack)
		}
	}
	if len(left) > 0 {
		t.Fatalf("%v\n\n%s", ended, strings.Join(left, "\n\n"))
	}
}

var leftByRaft = []string{
	"raft.(*deferError).Error", "raft.(*Raft).leadershipTransfer(", "raft.(*Raft).leaderLoop.func",
}

func stacks(all bool) string {
	buffer := make([]byte, 16<<20)
	return string(buffer[:runtime.Stack(buffer, all)])
}

func headOf(stack string) string {
	head, _, _ := strings.Cut(stack, "\n")
	return head
}

// bubbleOf returns the name of the bubble in the first line of a stack.
func bubbleOf(head string) string {
	_, name, _ := strings.Cut(head, "synctest bubble ")
	name, _, _ = strings.Cut(name, "]")
	return name
}
