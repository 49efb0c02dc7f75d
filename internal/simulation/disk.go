package simulation

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/ocistern/ocistern/cluster"
)

// disk is what Raft has written on one host; it outlives crashes. A write is durable when it returns, and as a whole or not
// at all, as raft-boltdb promises.
type disk struct {
	dice *dice
	// losesWrites plants a bug: writes return before they are durable, and a crash loses the last of them.
	losesWrites bool

	mutex     sync.Mutex // guards what follows
	logs      map[uint64]*raft.Log
	written   map[uint64]time.Time // when an entry was written
	stable    map[string][]byte
	snapshots []*snapshot // newest first
	slow      time.Duration
	failing   bool
}

// lostBySync is how much a disk that loses writes loses in a crash.
const lostBySync = 20 * time.Second

var (
	errPower = errors.New("the power failed")
	errDisk  = errors.New("input/output error")
)

func newDisk(d *dice) *disk {
	k := &disk{dice: d}
	k.wipe()
	return k
}

// wipe empties the disk.
func (k *disk) wipe() {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.logs, k.written, k.stable, k.snapshots = map[uint64]*raft.Log{}, map[uint64]time.Time{}, map[string][]byte{}, nil
}

// setFault makes the disk slow by so much a write, or failing.
func (k *disk) setFault(slow time.Duration, failing bool) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.slow, k.failing = slow, failing
}

// crash forgets what was never durable.
func (k *disk) crash() {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if !k.losesWrites {
		return
	}
	for index, at := range k.written {
		if time.Since(at) < lostBySync {
			delete(k.logs, index)
			delete(k.written, index)
		}
	}
}

// open returns the disk for one run of a node, which ends when dead is closed.
func (k *disk) open(dead <-chan struct{}) cluster.Disk {
	m := mounted{disk: k, dead: dead}
	return cluster.Disk{Logs: m, Stable: m, Snapshots: snapshots{m}, Close: func() error { return nil }}
}

// mounted is a disk as one run of a node sees it. It implements raft.LogStore and raft.StableStore.
type mounted struct {
	*disk
	dead <-chan struct{}
}

// write takes its time, then changes the disk. A write under way in a crash is durable or not, by chance.
func (m mounted) write(change func()) error {
	m.mutex.Lock()
	slow := m.slow
	m.mutex.Unlock()
	timer := time.NewTimer(m.dice.between(100*time.Microsecond, 4*time.Millisecond) + slow)
	defer timer.Stop()
	crashed := false
	select {
	case <-timer.C:
	case <-m.dead:
		crashed = true
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	select {
	case <-m.dead: // time of its own may have passed since the crash: the disk may be another run's
		crashed = true
	default:
	}
	if crashed {
		return errPower
	}
	if m.failing {
		return errDisk
	}
	change()
	return nil
}

// FirstIndex implements raft.LogStore, as do the methods up to DeleteRange.
func (m mounted) FirstIndex() (uint64, error) { return m.end(slices.Min[[]uint64]), nil }

// LastIndex returns 0 for an empty log.
func (m mounted) LastIndex() (uint64, error) { return m.end(slices.Max[[]uint64]), nil }

func (m mounted) end(of func([]uint64) uint64) uint64 {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if len(m.logs) == 0 {
		return 0
	}
	return of(slices.Collect(maps.Keys(m.logs)))
}

func (m mounted) GetLog(index uint64, entry *raft.Log) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	found, ok := m.logs[index]
	if !ok {
		return raft.ErrLogNotFound
	}
	*entry = *found
	return nil
}

func (m mounted) StoreLog(entry *raft.Log) error { return m.StoreLogs([]*raft.Log{entry}) }

func (m mounted) StoreLogs(entries []*raft.Log) error {
	return m.write(func() {
		for _, entry := range entries {
			copied := *entry
			m.logs[entry.Index], m.written[entry.Index] = &copied, time.Now()
		}
	})
}

func (m mounted) DeleteRange(first, last uint64) error {
	return m.write(func() {
		for index := first; index <= last; index++ {
			delete(m.logs, index)
			delete(m.written, index)
		}
	})
}

// Set implements raft.StableStore, as do the methods below. raft panics when it fails, and the process is gone; here all nodes
// are of one process. A failing disk therefore hangs instead, and a node that has crashed is told what it likes to hear.
func (m mounted) Set(key, value []byte) error {
	for {
		err := m.write(func() { m.stable[string(key)] = bytes.Clone(value) })
		if err == nil || errors.Is(err, errPower) {
			return nil
		}
	}
}

func (m mounted) Get(key []byte) ([]byte, error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	value, ok := m.stable[string(key)]
	if !ok {
		return nil, raftboltdb.ErrKeyNotFound
	}
	return bytes.Clone(value), nil
}

func (m mounted) SetUint64(key []byte, value uint64) error {
	return m.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

func (m mounted) GetUint64(key []byte) (uint64, error) {
	value, err := m.Get(key)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(value), nil
}

// forgetLog empties the disk but for the id of the node: a planted bug.
func (k *disk) forgetLog() {
	k.mutex.Lock()
	owner := k.stable["OcisternNodeID"]
	k.mutex.Unlock()
	k.wipe()
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.stable["OcisternNodeID"] = owner
}
