package budget

import (
	"sync"
	"time"
)

// Outcome is what came of a request, as far as the budget cares.
type Outcome uint8

// The outcomes.
const (
	// Answered: the upstream works, whatever it said.
	Answered Outcome = iota
	// Failed: no answer, or one of a server that does not work.
	Failed
	// GivenUp: the caller went away before there was an answer.
	GivenUp
)

// Ticket is the right to one request in flight.
type Ticket struct {
	budget *Budget
	since  time.Time
	probe  bool
	bulk   bool
	told   sync.Once
	back   sync.Once
}

// Tell says what came of the request; the first call counts. It is called when the header of the answer is here, or never
// will be.
func (t *Ticket) Tell(outcome Outcome) {
	t.told.Do(func() { t.budget.breaker.leave(outcome, t.probe) })
}

// Return gives the ticket back; the first call counts. It is called when the body of the answer is closed.
func (t *Ticket) Return() {
	t.Tell(GivenUp) // unless something else was told
	t.back.Do(func() {
		t.budget.slots.give(time.Since(t.since))
		if t.bulk {
			t.budget.bulk.give(time.Since(t.since))
		}
	})
}
