package cluster

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// bbolt panics over a damaged file: at open in a goroutine of its own, where nobody can recover, and it falls back silently
// on the transaction before the last when one of its two meta pages is damaged, which may be a vote that is forgotten. The
// file is therefore checked before bbolt may write to it: first its pages, without bbolt, then each entry.

// damage is the error of a raft directory that cannot be used any more. kind is for the name of its quarantine.
type damage struct {
	error
	kind string
}

// Unwrap returns the error, of reason CONTENT_CORRUPT.
func (d damage) Unwrap() error { return d.error }

func damaged(kind string, cause error, format string, args ...any) error {
	failure := errdef.New(errdef.ContentCorrupt, format, args...)
	if cause != nil {
		failure = errdef.Wrap(errdef.ContentCorrupt, cause, format, args...)
	}
	return damage{failure.WithRemedy("see what the disk has to say; the node needs a sound one"), kind}
}

// guarded turns a panic of a call, and a fault of the memory that a file is mapped to, into an error.
func guarded(call func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if panicked := recover(); panicked != nil {
			err = damaged("panic", nil, "the raft log cannot be used: %v", panicked)
		}
	}()
	return call()
}

// extent is where the log lies: entries from First to Last without a gap; others may be before a gap.
type extent struct{ First, Last uint64 }

// checkBolt reads a bbolt file from end to end. A file that is missing or was just made is sound.
func checkBolt(path string) (found extent, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return extent{}, nil
	}
	if err != nil {
		return extent{}, durable.Wrap(err, "cannot read the raft log")
	}
	store, err := raftboltdb.New(raftboltdb.Options{
		Path: path, BoltOptions: &bbolt.Options{ReadOnly: true, Timeout: lockTimeout},
	})
	if err != nil {
		return extent{}, notSound(err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	walk := &walk{}
	if err := readPages(path, walk.visit); err != nil {
		return extent{}, err
	}
	if len(walk.buckets) != 0 && len(walk.buckets) != 2 { // none: a crash came before anything was stored
		return extent{}, damaged("log", nil, "the raft log has %d of 2 buckets", len(walk.buckets))
	}
	if len(walk.runs) > 0 && !slices.Contains(walk.keys, ownerKey) {
		return extent{}, damaged("log", nil, "the raft log has entries and no owner")
	}
	return walk.extent(), guarded(func() error { return walk.decode(store) })
}

// notSound tells a file that bbolt refuses from one that cannot be opened.
func notSound(err error) error {
	if errors.Is(err, bbolterrors.ErrTimeout) || errors.As(err, new(syscall.Errno)) {
		return err
	}
	return damaged("log", err, "the raft log is damaged")
}

// walk is what was found in a file.
type walk struct {
	buckets []string
	runs    []extent // of entries, in order
	keys    []string // of the stable store
}

func (w *walk) visit(bucket string, key []byte) error {
	switch {
	case key == nil && (bucket == "logs" || bucket == "conf"):
		w.buckets = append(w.buckets, bucket)
		return nil
	case bucket == "conf":
		w.keys = append(w.keys, string(key))
		return nil
	case bucket == "logs" && len(key) == 8:
		index := binary.BigEndian.Uint64(key)
		if last := len(w.runs) - 1; last >= 0 && w.runs[last].Last+1 == index {
			w.runs[last].Last = index
		} else {
			w.runs = append(w.runs, extent{index, index})
		}
		return nil
	}
	return damaged("log", nil, "the raft log has a key %q in a bucket %q", key, bucket)
}

func (w *walk) extent() extent {
	if len(w.runs) == 0 {
		return extent{}
	}
	return w.runs[len(w.runs)-1]
}

// decode reads all by its key, as raft will.
func (w *walk) decode(store *raftboltdb.BoltStore) error {
	required := requiresChecksums(store)
	logs, stable := checkedLogs{store, required}, checkedStable{store, required}
	for _, run := range w.runs {
		for index := run.First; index <= run.Last; index++ {
			if err := logs.GetLog(index, &raft.Log{}); err != nil {
				return damaged("log", err, "entry %d of the raft log cannot be read", index)
			}
		}
	}
	for _, key := range w.keys {
		switch key {
		case checksumsKey:
			continue
		case ownerKey, "CurrentTerm", "LastVoteTerm", "LastVoteCand": // the latter three are raft's
			if _, err := stable.Get([]byte(key)); err != nil {
				return damaged("log", err, "the value of %q cannot be read", key)
			}
		default:
			return damaged("log", nil, "the raft state has a key %q", key)
		}
	}
	return nil
}
