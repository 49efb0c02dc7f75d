package simulation

import (
	"flag"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

var (
	seed    = flag.Uint64("sim.seed", 0, "first seed; 0 chooses by the clock")
	runs    = flag.Int("sim.runs", 2, "number of seeds")
	hours   = flag.Float64("sim.hours", 1, "simulated hours of each run")
	verbose = flag.Bool("sim.log", false, "log what the nodes say")
)

func options(t *testing.T, seed uint64) Options {
	o := Options{
		Seed: seed, Duration: time.Duration(*hours * float64(time.Hour)), Voters: 3, Replicas: 1, Clients: 6, Dir: t.TempDir(),
	}
	if *verbose {
		o.Log = os.Stderr
	}
	return o
}

func simulate(t *testing.T, o Options) (result *Result) {
	synctest.Test(t, func(*testing.T) { result = Run(o) })
	result.Judge()
	return result
}

func TestSimulation(t *testing.T) {
	first := *seed
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	for i := range *runs {
		began := time.Now()
		r := simulate(t, options(t, first+uint64(i)))
		t.Logf("seed %d: %d operations, %d unknown, %d ended, %v, %s", r.Seed, r.Operations, r.Unknown, r.Ended, r.Faults, time.Since(began))
		for _, f := range r.Failures {
			t.Errorf("seed %d: %s", r.Seed, f)
		}
	}
}
