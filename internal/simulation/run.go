package simulation

import (
	"fmt"
	"os"
	"time"

	"github.com/anishathalye/porcupine"
)

// Result is what came of a run.
type Result struct {
	Seed       uint64
	Operations int
	Unknown    int            // operations whose outcome no client learned
	Faults     map[string]int // that happened, by name
	Ended      int            // runs of nodes that ended themselves
	Failures   []string       // what must not have happened; empty for a good run
	Undecided  bool           // whether the history is linearizable, in the time allowed
	history    *history
	info       porcupine.LinearizationInfo
}

// String says in one line what happened.
func (r *Result) String() string {
	return fmt.Sprintf("%d operations, %d of unknown outcome, %d nodes ended themselves, faults: %v",
		r.Operations, r.Unknown, r.Ended, r.Faults)
}

// draining is longer than any timer that raft and memberlist leave behind: a bubble must end without goroutines, and its time
// passes only as long as Run lasts.
const draining = 10 * time.Minute

// Run simulates one cluster. It must be called in a bubble of testing/synctest. What it returns is yet to be judged.
func Run(o Options) *Result {
	f := newFleet(o)
	f.settle(f.hosts[:o.Voters]) // replicas come when there is a cluster
	f.settle(f.hosts)
	schedule, started := newSchedule(f), time.Now()
	for i := range o.Clients {
		f.workers.Go(func() { f.newClient(i).work(started) })
	}
	time.AfterFunc(o.Duration, f.end)
	schedule.run()
	f.workers.Wait()
	f.settle(f.hosts)
	f.workers.Wait()
	f.readAll()
	f.restoreAll()
	f.closed.Store(true)
	for _, h := range f.hosts {
		h.crash()
	}
	<-time.After(draining)
	result := &Result{
		Seed: o.Seed, Operations: len(f.history.operations), Faults: schedule.counts, Ended: int(f.fatals.Load()),
		Failures: f.failures.list(), history: f.history,
	}
	for _, operation := range f.history.operations {
		if operation.Output.(output).outcome == unknown {
			result.Unknown++
		}
	}
	return result
}

// checkLimit is how long linearizability may be looked for; an unfinished check is a failure of the simulation.
const checkLimit = time.Minute

// Judge checks linearizability, outside of the bubble: it takes real time.
func (r *Result) Judge() {
	verdict, info := r.history.verdict(checkLimit)
	r.info = info
	switch verdict {
	case porcupine.Illegal:
		r.Failures = append(r.Failures, "the history of a tag is not linearizable")
	case porcupine.Unknown:
		r.Undecided = true
	}
}

// Draw writes a picture of the history, for a browser.
func (r *Result) Draw(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := porcupine.Visualize(model, r.info, file); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}
