package cluster

import (
	"errors"
	"runtime"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// raft panics when it cannot read an entry that it needs, or cannot write its term. The node has been told to end by then
// (diskWatch): it should do so with its own words and in order, so raft's goroutine ends instead. endingLogs and
// endingStable are what raft sees; everything else uses what is below them. While raft is only being started, it runs on the
// goroutine of whoever starts it, and armed is false.

// endingLogs is a log store for raft alone.
type endingLogs struct {
	raft.LogStore
	armed *atomic.Bool
}

// GetLog implements raft.LogStore.
func (e endingLogs) GetLog(index uint64, log *raft.Log) error {
	err := e.LogStore.GetLog(index, log)
	if errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	return orEnd(err, e.armed)
}

// endingStable is a stable store for raft alone.
type endingStable struct {
	raft.StableStore
	armed *atomic.Bool
}

// Set implements raft.StableStore, as does SetUint64.
func (e endingStable) Set(key, value []byte) error {
	return orEnd(e.StableStore.Set(key, value), e.armed)
}

func (e endingStable) SetUint64(key []byte, value uint64) error {
	return orEnd(e.StableStore.SetUint64(key, value), e.armed)
}

func orEnd(err error, armed *atomic.Bool) error {
	if err != nil && armed.Load() {
		runtime.Goexit()
	}
	return err
}
