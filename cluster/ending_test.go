package cluster

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/internal/errdef"
)

// brokenStore panics as bbolt does, or reads memory that is not there, as of a file that was cut off.
type brokenStore struct {
	raft.LogStore
	raft.StableStore
	fault bool
}

func (b brokenStore) fail() error {
	if b.fault {
		address := uintptr(1 << 40)
		_ = bytes.Clone(unsafe.Slice(*(**byte)(unsafe.Pointer(&address)), 8))
	}
	panic("assertion failed: Page expected to be: 7")
}

func (b brokenStore) GetLog(uint64, *raft.Log) error     { return b.fail() }
func (b brokenStore) LastIndex() (uint64, error)         { return 0, b.fail() }
func (b brokenStore) FirstIndex() (uint64, error)        { return 0, b.fail() }
func (b brokenStore) StoreLogs([]*raft.Log) error        { return b.fail() }
func (b brokenStore) DeleteRange(uint64, uint64) error   { return b.fail() }
func (b brokenStore) Get([]byte) ([]byte, error)         { return nil, b.fail() }
func (b brokenStore) Set([]byte, []byte) error           { return b.fail() }
func (b brokenStore) GetUint64([]byte) (uint64, error)   { return 0, b.fail() }
func (b brokenStore) SetUint64(_ []byte, _ uint64) error { return b.fail() }
func (b brokenStore) StoreLog(*raft.Log) error           { return b.fail() }

// A store that panics at run time ends the node with a typed error; raft, which would panic over what it needs, ends with
// its goroutine. Without guarded this test panics.
func TestBrokenStoreEndsTheNode(t *testing.T) {
	for _, fault := range []bool{false, true} {
		broken := brokenStore{fault: fault}
		var told error
		disk := diskWatch{limit: patience, fatal: func(err error) { told = err }}
		logs, stable := watchedLogs{checkedLogs{broken, true}, disk}, watchedStable{checkedStable{broken, true}, disk}
		for name, call := range map[string]func() error{
			"GetLog":      func() error { return logs.GetLog(1, &raft.Log{}) },
			"FirstIndex":  func() error { _, err := logs.FirstIndex(); return err },
			"LastIndex":   func() error { _, err := logs.LastIndex(); return err },
			"StoreLogs":   func() error { return logs.StoreLogs([]*raft.Log{{Index: 1}}) },
			"DeleteRange": func() error { return logs.DeleteRange(1, 1) },
			"Get":         func() error { _, err := stable.Get([]byte("k")); return err },
			"Set":         func() error { return stable.Set([]byte("k"), nil) },
			"GetUint64":   func() error { _, err := stable.GetUint64([]byte("k")); return err },
			"SetUint64":   func() error { return stable.SetUint64([]byte("k"), 1) },
		} {
			told = nil
			if err := call(); !errors.Is(err, errdef.ErrContentCorrupt) || !errors.Is(told, errdef.ErrContentCorrupt) {
				t.Errorf("%s: %v, told %v", name, err, told)
			}
		}
		armed := &atomic.Bool{}
		for name, call := range map[string]func() error{
			"GetLog":    func() error { return endingLogs{logs, armed}.GetLog(1, &raft.Log{}) },
			"Set":       func() error { return endingStable{stable, armed}.Set([]byte("k"), nil) },
			"SetUint64": func() error { return endingStable{stable, armed}.SetUint64([]byte("k"), 1) },
		} {
			armed.Store(false)
			if err := call(); err == nil {
				t.Errorf("%s before raft runs: no error", name)
			}
			armed.Store(true)
			returned, ended := false, make(chan struct{})
			go func() {
				defer close(ended)
				_ = call()
				returned = true
			}()
			if <-ended; returned {
				t.Errorf("%s returned to raft", name)
			}
		}
	}
}
