package cluster

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// diskWatch ends a node whose disk fails or hangs. Raft would let it lead on, without a single commit, since heartbeats
// need no disk (hashicorp/raft issues 503 and 614). Another node can lead only when this one is gone.
type diskWatch struct {
	limit   time.Duration
	fatal   func(error)
	reserve *reserve
}

func (w diskWatch) write(write func() error) error {
	late := time.AfterFunc(w.limit, func() {
		w.fatal(errdef.New(errdef.StorageFailed, "a write to the raft log takes longer than %s", w.limit).
			WithRemedy("look at the disk of the data directory"))
	})
	defer late.Stop()
	// Entries and values may be written twice, and a range deleted twice.
	err := w.reserve.rescue(func() error { return guarded(write) })
	if err != nil {
		err = durable.Wrap(err, "cannot write the raft log")
		w.fatal(err)
	}
	return err
}

// read guards a read. A store that is damaged ends the node as well; that there is no such entry or key does not.
func (w diskWatch) read(read func() error) error {
	err := guarded(read)
	if errdef.ReasonOf(err) == errdef.ContentCorrupt {
		w.fatal(err)
	}
	return err
}

// watchedLogs is a log store that is watched.
type watchedLogs struct {
	raft.LogStore
	disk diskWatch
}

// StoreLog implements raft.LogStore, as do the methods below.
func (w watchedLogs) StoreLog(log *raft.Log) error {
	return w.disk.write(func() error { return w.LogStore.StoreLog(log) })
}

func (w watchedLogs) StoreLogs(logs []*raft.Log) error {
	return w.disk.write(func() error { return w.LogStore.StoreLogs(logs) })
}

func (w watchedLogs) DeleteRange(first, last uint64) error {
	return w.disk.write(func() error { return w.LogStore.DeleteRange(first, last) })
}

// GetLog implements raft.LogStore.
func (w watchedLogs) GetLog(index uint64, log *raft.Log) error {
	return w.disk.read(func() error { return w.LogStore.GetLog(index, log) })
}

// FirstIndex implements raft.LogStore.
func (w watchedLogs) FirstIndex() (index uint64, err error) {
	err = w.disk.read(func() error {
		index, err = w.LogStore.FirstIndex()
		return err
	})
	return index, err
}

// LastIndex implements raft.LogStore.
func (w watchedLogs) LastIndex() (index uint64, err error) {
	err = w.disk.read(func() error {
		index, err = w.LogStore.LastIndex()
		return err
	})
	return index, err
}

// watchedStable is a stable store (term and vote) that is watched.
type watchedStable struct {
	raft.StableStore
	disk diskWatch
}

// Set implements raft.StableStore, as does SetUint64.
func (w watchedStable) Set(key, value []byte) error {
	return w.disk.write(func() error { return w.StableStore.Set(key, value) })
}

func (w watchedStable) SetUint64(key []byte, value uint64) error {
	return w.disk.write(func() error { return w.StableStore.SetUint64(key, value) })
}

// Get implements raft.StableStore, as does GetUint64.
func (w watchedStable) Get(key []byte) (value []byte, err error) {
	err = w.disk.read(func() error {
		value, err = w.StableStore.Get(key)
		return err
	})
	return value, err
}

func (w watchedStable) GetUint64(key []byte) (value uint64, err error) {
	err = w.disk.read(func() error {
		value, err = w.StableStore.GetUint64(key)
		return err
	})
	return value, err
}
