package catalog

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"

	"github.com/ocistern/ocistern/internal/errdef"
)

// Catalog is the state machine: one writer (package fsm), any number of readers.
type Catalog struct {
	// writing guards state, which only Apply and Restore touch.
	writing sync.Mutex
	state   *state

	current atomic.Pointer[Snapshot]

	// waiting guards changed, which is closed and replaced whenever current moves.
	waiting sync.Mutex
	changed chan struct{}
}

// Entry is one command with its place in the log. Commands of one log entry share Index and Hash.
type Entry struct {
	Index LogIndex
	// Command is nil for an entry that carries none (a configuration change): only the index moves.
	Command Command
	// Request tells whether the command was decided before.
	Request Request
	// Hash is the running hash over all log entries up to and including this one.
	Hash [32]byte
}

// Result is what an entry came to.
type Result struct {
	// Index is that of the entry that decided the command: an earlier one when the request is a repeated one.
	Index LogIndex
	// Err is nil for a command that was applied. Where the request is a repeated one, its reason is the first one's, its
	// text is not.
	Err error
	// Repeated tells that an earlier command with the same request ID decided this one, maybe in the same entry.
	Repeated bool
}

// Option changes a new catalog.
type Option func(*state)

// WithoutOutcomes makes a catalog that applies repeated requests again. It is for tests, which plant this bug to see that
// they would notice it.
func WithoutOutcomes() Option { return func(s *state) { s.outcomes.never = true } }

// New returns an empty catalog at index 0.
func New(options ...Option) *Catalog {
	c := &Catalog{state: newState(), changed: make(chan struct{})}
	for _, option := range options {
		option(c.state)
	}
	c.current.Store(&Snapshot{state: c.state.copy()})
	return c
}

// Apply applies entries in ascending order and publishes one snapshot for all of them: all commands of a log entry must be
// in one call. It returns one result per entry; an entry that was refused changed nothing but index, hash and outcomes,
// one of a repeated request not even those. Requests too old to know are refused with reason REQUEST_EXPIRED. The
// catalog keeps what the commands point at: it must not be modified afterwards.
func (c *Catalog) Apply(entries ...Entry) []Result {
	c.writing.Lock()
	defer c.writing.Unlock()
	results := make([]Result, len(entries))
	for i, entry := range entries {
		results[i].Index = entry.Index
		if entry.Command != nil {
			results[i] = c.state.apply(entry)
		}
		c.state.index, c.state.commandHash = entry.Index, entry.Hash
	}
	if len(entries) > 0 {
		c.publish()
	}
	return results
}

// Header is what a snapshot carries beside its records.
type Header struct {
	Index       LogIndex
	ClusterID   string
	CommandHash [32]byte
	Level       FeatureLevel
	Forgotten   LogIndex // of the newest outcome that is not remembered any more
	Formers     []string // clusters that were recovered as this one, oldest first; none below LevelRequests
}

// Restore replaces the whole catalog by header and records. It changes nothing when the sequence yields an error or a
// record that does not fit, and returns that error.
func (c *Catalog) Restore(header Header, records iter.Seq2[Record, error]) error {
	fresh := newState()
	fresh.index, fresh.clusterID, fresh.commandHash = header.Index, header.ClusterID, header.CommandHash
	fresh.level, fresh.outcomes.forgotten, fresh.formers = header.Level, header.Forgotten, header.Formers
	for record, err := range records {
		if err != nil {
			return err
		}
		if err := record.restore(fresh); err != nil {
			return errdef.Wrap(errdef.SnapshotInvalid, err, "snapshot at index %d holds a bad record", header.Index)
		}
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	fresh.outcomes.never = c.state.outcomes.never
	c.state = fresh
	c.publish()
	return nil
}

// publish makes the writer's state visible. The caller holds writing.
func (c *Catalog) publish() {
	c.current.Store(&Snapshot{state: c.state.copy()})
	c.waiting.Lock()
	close(c.changed)
	c.changed = make(chan struct{})
	c.waiting.Unlock()
}

// Snapshot returns the current snapshot. It costs O(1) and never blocks.
func (c *Catalog) Snapshot() *Snapshot { return c.current.Load() }

// Wait returns a snapshot that has seen index, waiting for it if need be. It fails with reason DEADLINE or CANCELED
// when ctx ends before.
func (c *Catalog) Wait(ctx context.Context, index LogIndex) (*Snapshot, error) {
	for {
		c.waiting.Lock()
		changed := c.changed
		c.waiting.Unlock()
		if s := c.Snapshot(); s.Index() >= index {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, errdef.Wrap(errdef.ReasonOf(ctx.Err()), ctx.Err(), "catalog is at index %d, waiting for %d",
				c.Snapshot().Index(), index)
		}
	}
}
