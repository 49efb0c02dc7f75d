// Package fsm joins the catalog to Raft: it decodes log entries, applies them to a catalog.Catalog in batches, and
// writes and reads snapshots. It decides nothing about content; package catalog does, and package cluster runs Raft.
//
// Determinism rests on three rules, argued in DESIGN.md: every node applies the decoded bytes of the log, never the
// proposer's own value; a command that cannot be understood whole stops the node instead of being skipped; and a
// running hash over the applied bytes makes two nodes comparable.
package fsm

import (
	"crypto/sha256"
	"encoding/binary"
	"io"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Options holds what the FSM reports to. The functions run on raft's FSM goroutine: they must not wait for raft.
type Options struct {
	// Stop is called exactly once, when an entry is met that this build cannot understand. The node must then exit: the
	// FSM applies nothing any more and takes no snapshot. May be nil.
	Stop func(error)
	// Applied is called after each batch with the commands that were applied without error, one catalog.Entry each; those
	// of one log entry share its index. Repeated requests are not among them. It must be cheap and must not change them.
	// May be nil.
	Applied func([]catalog.Entry)
	// Restored is called after a snapshot has replaced the catalog: what came with it was never told to Applied. It must
	// be cheap. May be nil.
	Restored func()
	// Hurry lets a snapshot take breaks, for the sake of commands, until it is closed: raft waits for a snapshot that is
	// under way before it ends. Nil for none.
	Hurry <-chan struct{}
}

// FSM is the state machine that raft drives. Raft calls its methods from one goroutine; only a snapshot that was
// taken is persisted beside them.
type FSM struct {
	catalog *catalog.Catalog
	options Options
	decoder decoder
	history history
	record  func(catalog.FeatureLevel) error
	stopped error // not nil once an entry could not be understood
}

var _ raft.BatchingFSM = (*FSM)(nil)

// New returns the state machine that keeps cat. Nothing else may write to cat.
func New(cat *catalog.Catalog, options Options) *FSM {
	record := func(catalog.FeatureLevel) error { return nil }
	return &FSM{catalog: cat, options: options, decoder: newDecoder(), record: record}
}

// RecordLevel makes record be called with the feature level of the cluster before the first entry of that level is
// applied, and after a snapshot was restored. It must make the level durable; when it fails, the FSM stops. To be called
// before raft runs.
func (f *FSM) RecordLevel(record func(catalog.FeatureLevel) error) { f.record = record }

// Apply applies one entry; raft calls ApplyBatch instead where it can.
func (f *FSM) Apply(log *raft.Log) any { return f.ApplyBatch([]*raft.Log{log})[0] }

// ApplyBatch applies committed entries in order and publishes one catalog snapshot for all of them. The response to each
// is a []catalog.Result, one for each of its commands and none for an entry without; or the error, once the FSM has
// stopped.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any {
	entries, ends := f.decode(logs)
	f.history.add(entries) // before others can see that they are applied
	results := f.catalog.Apply(entries...)
	f.report(entries, results)

	responses := make([]any, len(logs))
	from := 0
	for i := range responses {
		if i >= len(ends) {
			responses[i] = f.stopped
			continue
		}
		if logs[i].Type == raft.LogCommand {
			responses[i] = results[from:ends[i]:ends[i]]
		}
		from = ends[i]
	}
	if len(ends) < len(logs) {
		f.stop()
	}
	return responses
}

// decode returns the commands of all logs up to the first that cannot be understood, whose error it remembers, and where
// the commands of each log end.
func (f *FSM) decode(logs []*raft.Log) (entries []catalog.Entry, ends []int) {
	hash := f.catalog.Snapshot().CommandHash()
	entries, ends = make([]catalog.Entry, 0, len(logs)), make([]int, 0, len(logs))
	for _, log := range logs {
		if f.stopped != nil {
			break
		}
		entry := catalog.Entry{Index: catalog.LogIndex(log.Index), Hash: hash}
		if log.Type != raft.LogCommand {
			entries = append(entries, entry)
			ends = append(ends, len(entries))
			continue
		}
		commands, err := f.understand(log.Data)
		if err != nil {
			f.stopped = errdef.Wrap(errdef.ReasonOf(err), err, "log entry %d cannot be applied", log.Index).
				WithRemedy("run the version of ocistern that the other nodes run")
			break
		}
		hash = chain(hash, log.Index, log.Data)
		entry.Hash = hash
		for _, one := range commands {
			entry.Command, entry.Request = one.command, one.request
			entries = append(entries, entry)
		}
		ends = append(ends, len(entries))
	}
	return entries, ends
}

// understand decodes one log entry. A level that it raises is recorded first.
func (f *FSM) understand(encoded []byte) ([]decoded, error) {
	commands, err := f.decoder.entry(encoded)
	if err != nil {
		return nil, err
	}
	for _, one := range commands {
		if raise, ok := one.command.(catalog.RaiseLevel); ok {
			if err := f.record(raise.Level); err != nil {
				return nil, err
			}
		}
	}
	return commands, nil
}

// chain extends the running hash by one entry. The index is part of it: an entry at another place is another log.
func chain(hash [sha256.Size]byte, index uint64, entry []byte) [sha256.Size]byte {
	sum := sha256.New()
	sum.Write(hash[:])
	sum.Write(binary.BigEndian.AppendUint64(nil, index))
	sum.Write(entry)
	return [sha256.Size]byte(sum.Sum(nil))
}

// report hands the commands that changed something to Options.Applied.
func (f *FSM) report(entries []catalog.Entry, results []catalog.Result) {
	if f.options.Applied == nil {
		return
	}
	applied := make([]catalog.Entry, 0, len(entries))
	for i, entry := range entries {
		if entry.Command != nil && results[i].Err == nil && !results[i].Repeated {
			applied = append(applied, entry)
		}
	}
	if len(applied) > 0 {
		f.options.Applied(applied)
	}
}

// stop tells the node to exit, the first time it is called.
func (f *FSM) stop() {
	if stop := f.options.Stop; stop != nil {
		f.options.Stop = nil
		stop(f.stopped)
	}
}

// Snapshot captures the catalog in O(1). It fails once the FSM has stopped: raft would label the snapshot with the
// index of an entry that was not applied.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	if f.stopped != nil {
		return nil, f.stopped
	}
	return persister{snapshot: f.catalog.Snapshot(), hurry: f.options.Hurry}, nil
}

// Restore replaces the catalog by a snapshot and closes it. On an error, reason SNAPSHOT_INVALID where the bytes are
// at fault, the catalog stays as it was.
func (f *FSM) Restore(snapshot io.ReadCloser) error {
	defer snapshot.Close() // read only: nothing is lost when it fails
	if f.stopped != nil {
		return f.stopped
	}
	f.history.forget() // who waits for the catalog that comes now must not be told the hash of the one before
	err := restore(f.catalog, snapshot)
	restored := f.catalog.Snapshot()
	f.history.begin(restored.Index(), restored.CommandHash())
	if err != nil {
		return err
	}
	if err := f.record(restored.FeatureLevel()); err != nil {
		f.stopped = err
		f.stop()
		return err
	}
	if f.options.Restored != nil {
		f.options.Restored()
	}
	return nil
}
