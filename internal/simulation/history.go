package simulation

import (
	"fmt"
	"math"
	"sync"

	"github.com/anishathalye/porcupine"

	"github.com/ocistern/ocistern/fsm/catalog"
)

// history is what clients did and saw, in the order of one clock that ticks with every event: events at one moment of
// simulated time have an order, too.
type history struct {
	mutex      sync.Mutex // guards what follows
	clock      int64
	operations []porcupine.Operation
	hashes     map[catalog.LogIndex][32]byte
	seen       map[sight]string
}

// sight is a tag in the catalog of one index: all nodes must show the same there.
type sight struct {
	index catalog.LogIndex
	tag   string
}

func newHistory() *history {
	return &history{hashes: map[catalog.LogIndex][32]byte{}, seen: map[sight]string{}}
}

// now returns the time of an event.
func (h *history) now() int64 {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.clock++
	return h.clock
}

// add records an operation that has begun at call and ends now, or, with an unknown outcome, never.
func (h *history) add(client int, call int64, in input, out output) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.clock++
	end := h.clock
	if out.outcome == unknown {
		end = math.MaxInt64
	}
	h.operations = append(h.operations, porcupine.Operation{
		ClientId: client, Input: in, Call: call, Output: out, Return: end,
	})
}

// applied records the running hash after an entry, and tells whether another node had another one.
func (h *history) applied(index catalog.LogIndex, hash [32]byte) (first [32]byte, differs bool) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	first, known := h.hashes[index]
	if !known {
		h.hashes[index] = hash
		return hash, false
	}
	return first, first != hash
}

// show records what a catalog of an index said of a tag, and returns what another one said.
func (h *history) show(index catalog.LogIndex, tag, value string) (first string, differs bool) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	at := sight{index, tag}
	first, known := h.seen[at]
	if !known {
		h.seen[at] = value
		return value, false
	}
	return first, first != value
}

type kind string

const (
	put   kind = "put"   // move a tag
	swap  kind = "swap"  // move a tag if it points where it is expected to
	untag kind = "untag" // remove a tag
	read  kind = "read"  // linearizable
)

// input is what a client asked for. A tag that points nowhere has the value "".
type input struct {
	kind          kind
	tag           string
	value, expect string
}

type outcome string

const (
	done    outcome = "done"
	refused outcome = "refused" // by the state machine
	unknown outcome = "unknown"
)

type output struct {
	outcome outcome
	value   string // of a read
}

// model is a set of tags, each a register of its own.
var model = porcupine.Model{
	Partition: func(operations []porcupine.Operation) [][]porcupine.Operation {
		at, parts := map[string]int{}, [][]porcupine.Operation(nil)
		for _, operation := range operations {
			tag := operation.Input.(input).tag
			i, known := at[tag]
			if !known {
				i, at[tag], parts = len(parts), len(parts), append(parts, nil)
			}
			parts[i] = append(parts[i], operation)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, in, out any) (bool, any) { return step(state.(string), in.(input), out.(output)) },
	DescribeOperation: func(in, out any) string {
		i, o := in.(input), out.(output)
		return fmt.Sprintf("%s %s %s %s: %s %s", i.kind, i.tag, short(i.expect), short(i.value), o.outcome, short(o.value))
	},
	DescribeState: func(state any) string { return short(state.(string)) },
}

// step tells whether a tag in a state can answer so, and its next state. What has an unknown outcome, and never was applied,
// has its step after all others, where it disturbs nobody.
func step(state string, in input, out output) (bool, any) {
	switch in.kind {
	case put:
		return true, in.value
	case swap:
		if state == in.expect {
			return out.outcome != refused, in.value
		}
		return out.outcome != done, state
	case untag:
		switch out.outcome {
		case done:
			return state != "", ""
		case refused:
			return state == "", ""
		default:
			return true, ""
		}
	default:
		return out.value == state, state
	}
}

func short(value string) string {
	if len(value) > 15 {
		return value[7:15]
	}
	return value
}
