package catalog

import (
	"encoding/hex"
	"slices"

	"github.com/ocistern/ocistern/internal/errdef"
)

// RequestID names one request for ever: 128 random bits. The zero value names none.
type RequestID [16]byte

// MarshalText implements encoding.TextMarshaler: 32 hexadecimal digits.
func (id RequestID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// String returns 32 hexadecimal digits.
func (id RequestID) String() string { return hex.EncodeToString(id[:]) }

// Request makes a command safe to submit again: of all that carry one ID, only the first is applied. The zero value is a
// command that is submitted once.
type Request struct {
	ID RequestID
	// Since is an index that had been applied when the ID was drawn: before it, the request cannot have been decided.
	Since LogIndex
}

// Outcome is what became of a request.
type Outcome struct {
	ID    RequestID
	Index LogIndex // of the entry that decided it
	// Refused is the reason of the refusal, empty for a command that was applied. The text is not remembered: two builds
	// may word it differently, and would then hold two catalogs.
	Refused errdef.Reason `json:",omitempty"`
}

// MaxOutcomes is how many outcomes are remembered. A request is repeated within seconds, as long as its submitter has
// patience; this many is eight seconds of the fastest writing that was ever measured, in about 5 MB.
const MaxOutcomes = 65_536

// outcomes remembers what became of the last requests, first in, first out. What is in recent is never changed, so a
// frozen state shares it with the writer, who only appends behind.
type outcomes struct {
	recent    []Outcome // oldest first
	forgotten LogIndex  // of the newest one that is not remembered any more

	places  map[RequestID]int // the writer's: place of each in recent, plus dropped
	dropped int               // how many are not in recent any more
	never   bool              // planted: nothing is remembered
}

// find returns the outcome of a request that is remembered.
func (o *outcomes) find(id RequestID) (Outcome, bool) {
	place, ok := o.places[id]
	if !ok {
		return Outcome{}, false
	}
	return o.recent[place-o.dropped], true
}

func (o *outcomes) remember(outcome Outcome) {
	if len(o.recent) == MaxOutcomes {
		oldest := o.recent[0]
		o.recent, o.dropped, o.forgotten = o.recent[1:], o.dropped+1, oldest.Index
		delete(o.places, oldest.ID)
	}
	if len(o.recent) == cap(o.recent) { // doubled, so that each is copied about once
		o.recent = slices.Grow(o.recent, max(len(o.recent), 64))
	}
	if o.places == nil {
		o.places = map[RequestID]int{}
	}
	o.places[outcome.ID] = o.dropped + len(o.recent)
	o.recent = append(o.recent, outcome)
}

// copy returns what a frozen state needs.
func (o *outcomes) copy() outcomes { return outcomes{recent: o.recent, forgotten: o.forgotten} }

// apply applies one command, unless its request was decided before.
func (s *state) apply(entry Entry) Result {
	once := entry.Request.ID != RequestID{} && !s.outcomes.never
	if once {
		if known, ok := s.outcomes.find(entry.Request.ID); ok {
			return known.result()
		}
		if entry.Request.Since < s.outcomes.forgotten {
			return Result{Index: entry.Index, Err: errdef.New(errdef.RequestExpired,
				"request %s is of index %d, and outcomes are remembered since %d",
				entry.Request.ID, entry.Request.Since, s.outcomes.forgotten).WithRemedy("submit it as a new request")}
		}
	}
	err := entry.Command.apply(&transaction{state: s, index: entry.Index})
	if once {
		s.outcomes.remember(Outcome{ID: entry.Request.ID, Index: entry.Index, Refused: errdef.ReasonOf(err)})
	}
	return Result{Index: entry.Index, Err: err}
}

func (o Outcome) result() Result {
	if o.Refused == "" {
		return Result{Index: o.Index, Repeated: true}
	}
	return Result{Index: o.Index, Err: errdef.New(o.Refused, "entry %d refused the request", o.Index), Repeated: true}
}
