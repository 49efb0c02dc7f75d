package cluster

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/internal/errdef"
)

// sickDisk is a log and stable store whose writes end as told.
type sickDisk struct {
	raft.LogStore
	raft.StableStore
	write func() error
}

func (d sickDisk) StoreLog(*raft.Log) error         { return d.write() }
func (d sickDisk) StoreLogs([]*raft.Log) error      { return d.write() }
func (d sickDisk) DeleteRange(uint64, uint64) error { return d.write() }
func (d sickDisk) Set([]byte, []byte) error         { return d.write() }
func (d sickDisk) SetUint64([]byte, uint64) error   { return d.write() }

// Every write of Raft is watched: one that fails and one that hangs end the node, one that is merely slow does not.
func TestDiskWatch(t *testing.T) {
	failed := errors.New("input/output error")
	writes := map[string]func(watchedLogs, watchedStable) error{
		"StoreLog":    func(l watchedLogs, _ watchedStable) error { return l.StoreLog(nil) },
		"StoreLogs":   func(l watchedLogs, _ watchedStable) error { return l.StoreLogs(nil) },
		"DeleteRange": func(l watchedLogs, _ watchedStable) error { return l.DeleteRange(1, 2) },
		"Set":         func(_ watchedLogs, s watchedStable) error { return s.Set(nil, nil) },
		"SetUint64":   func(_ watchedLogs, s watchedStable) error { return s.SetUint64(nil, 1) },
	}
	for name, write := range writes {
		for _, c := range []struct {
			how   string
			takes time.Duration
			err   error
			fatal bool
		}{
			{"slow", 9 * time.Second, nil, false},
			{"hangs", time.Minute, nil, true},
			{"fails", 0, failed, true},
		} {
			t.Run(name+" "+c.how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					told := make(chan error, 2)
					disk := diskWatch{limit: 10 * time.Second, fatal: func(err error) { told <- err }}
					sick := sickDisk{write: func() error { time.Sleep(c.takes); return c.err }} //nolint:forbidigo // fake time
					if err := write(watchedLogs{sick, disk}, watchedStable{sick, disk}); !errors.Is(err, c.err) {
						t.Errorf("the write returned %v, want %v", err, c.err)
					}
					synctest.Wait()
					if len(told) == 0 {
						told <- nil
					}
					if err := <-told; errors.Is(err, errdef.ErrStorageFailed) != c.fatal {
						t.Errorf("told %v, want STORAGE_FAILED: %t", err, c.fatal)
					}
				})
			})
		}
	}
}
