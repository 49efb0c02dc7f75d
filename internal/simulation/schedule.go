package simulation

import (
	"sync"
	"sync/atomic"
	"time"
)

// between is how long it takes, on average, from one fault to the next one. Faults last longer than that: some overlap.
const between = 25 * time.Second

// schedule breaks things as the seed says.
type schedule struct {
	fleet  *fleet
	dice   *dice
	faults sync.WaitGroup
	whole  atomic.Bool // all voters have their disks

	mutex  sync.Mutex // guards what follows
	inUse  map[any]bool
	counts map[string]int
}

func newSchedule(f *fleet) *schedule {
	s := &schedule{fleet: f, dice: newDice(f.options.Seed, 3), inUse: map[any]bool{}, counts: map[string]int{}}
	s.whole.Store(true)
	return s
}

// run breaks things until the time is over, and then waits until all is mended.
func (s *schedule) run() {
	for pause(s.fleet.running, s.dice.mostly(between)) == nil {
		chosen := s.choose()
		s.fleet.logger("schedule").Info("fault", "fault", chosen.name)
		s.mutex.Lock()
		s.counts[chosen.name]++
		s.mutex.Unlock()
		s.fleet.trouble.begin()
		s.faults.Go(func() { chosen.run(s) })
	}
	s.faults.Wait()
}

func (s *schedule) choose() fault {
	total := 0
	for _, f := range faults {
		if f.name == s.fleet.options.Fault {
			return f
		}
		total += f.weight
	}
	roll := s.dice.below(total)
	for _, f := range faults {
		if roll -= f.weight; roll < 0 {
			return f
		}
	}
	return faults[0]
}

// wait lets simulated time pass, and returns false when the run is over.
func (s *schedule) wait(low, high time.Duration) bool {
	return pause(s.fleet.running, s.dice.between(low, high)) == nil
}

func (s *schedule) any() *host { return s.fleet.hosts[s.dice.below(len(s.fleet.hosts))] }

// two returns two different hosts.
func (s *schedule) two() (a, b *host) {
	first := s.dice.below(len(s.fleet.hosts))
	second := (first + 1 + s.dice.below(len(s.fleet.hosts)-1)) % len(s.fleet.hosts)
	return s.fleet.hosts[first], s.fleet.hosts[second]
}

// withHost runs a fault that starts and stops a host, one at a time.
func (s *schedule) withHost(h *host, run func(*host)) {
	if h != nil {
		s.alone(h, func() { run(h) })
	}
}

// withDisk runs a fault of a disk, one at a time.
func (s *schedule) withDisk(h *host, run func(*host)) { s.alone(h.disk, func() { run(h) }) }

func (s *schedule) alone(what any, run func()) {
	s.mutex.Lock()
	taken := s.inUse[what]
	s.inUse[what] = true
	s.mutex.Unlock()
	if taken {
		return
	}
	run()
	s.mutex.Lock()
	delete(s.inUse, what)
	s.mutex.Unlock()
}
