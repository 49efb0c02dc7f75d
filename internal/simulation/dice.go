package simulation

import (
	"math/rand/v2"
	"sync"
	"time"
)

// dice is a source of chance for many goroutines. Which of them rolls first is the scheduler's choice, so that a seed fixes
// what is rolled, but not by whom; what must be the same in each run of a seed has dice of its own.
type dice struct {
	mutex  sync.Mutex // guards source
	source *rand.Rand
}

func newDice(seed, stream uint64) *dice { return &dice{source: rand.New(rand.NewPCG(seed, stream))} }

func (d *dice) float() float64 {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.source.Float64()
}

// below returns a number from 0 to n-1.
func (d *dice) below(n int) int {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.source.IntN(n)
}

func (d *dice) between(low, high time.Duration) time.Duration {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return low + time.Duration(d.source.Int64N(int64(high-low)+1))
}

// mostly returns a time around mean: seldom very short, seldom several times as long.
func (d *dice) mostly(mean time.Duration) time.Duration {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return time.Duration(d.source.ExpFloat64() * float64(mean))
}
