package cluster

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// reserve is disk space that is kept for what must be written: the raft log, the term, node.json. When the disk is full it is
// given up, which says that the rest will be soon; it is made again when there is room. A nil reserve has no space. It is safe
// for concurrent use.
type reserve struct {
	path   string
	size   int64 // bytes that it is to have
	logger *slog.Logger

	changing sync.Mutex   // serializes changes of the file, and of the fields below
	kept     atomic.Int64 // bytes that the file has
	given    atomic.Int64 // how often it was given up
}

// remakeEvery is how often the reserve is looked at; remakeRoom is how many times its size must be free before it is made
// again, so that it is not taken from what it was given up for.
const (
	remakeEvery = 10 * time.Second
	remakeRoom  = 3
)

// openReserve keeps size bytes in dataDir, none when size is 0. A disk that has no room for it is not an error; what was kept
// there before then stays.
func openReserve(dataDir string, size int64, logger *slog.Logger) (*reserve, error) {
	r := &reserve{path: filepath.Join(dataDir, "reserve"), size: size, logger: logger}
	if err := durable.Tidy(r.path); err != nil {
		return nil, err
	}
	info, err := os.Stat(r.path)
	if err == nil {
		r.kept.Store(info.Size())
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, durable.Wrap(err, "cannot look at the reserve")
	}
	if err := r.fit(); err != nil {
		return nil, err
	}
	if kept := r.kept.Load(); kept < size {
		r.logger.Warn("there is no room to keep a reserve for the raft log", "reserve", size, "kept", kept)
	}
	return r, nil
}

// fit gives the file its size, unless there is not room enough for it and more. It shrinks in place: a full disk has no room
// for another file, and what is kept must not be lost meanwhile.
func (r *reserve) fit() error {
	r.changing.Lock()
	defer r.changing.Unlock()
	var err error
	switch kept := r.kept.Load(); {
	case r.size == 0:
		err = r.remove()
	case kept == r.size:
		return nil
	case kept > r.size:
		if err = os.Truncate(r.path, r.size); err != nil {
			err = durable.Wrap(err, "cannot shrink the reserve")
		}
	default:
		var free int64
		if free, err = durable.Free(filepath.Dir(r.path)); err == nil && free < remakeRoom*r.size {
			return nil
		}
		if err == nil {
			err = durable.Allocate(r.path, r.size, 0o600)
		}
	}
	if err == nil {
		r.kept.Store(r.size)
	}
	if errdef.ReasonOf(err) == errdef.StorageFull {
		return nil // somebody was quicker
	}
	return err
}

func (r *reserve) remove() error {
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return durable.Wrap(err, "cannot give up the reserve")
	}
	return durable.SyncDir(filepath.Dir(r.path))
}

// rescue repeats a write that found the disk full, as long as the reserve was given up since it began, by itself or by another
// write. The write must be one that may be repeated.
func (r *reserve) rescue(write func() error) error {
	if r == nil {
		return write()
	}
	for {
		given := r.given.Load()
		err := write()
		if !foundFull(err) {
			return err
		}
		room, failed := r.giveUp(given, err)
		if !room {
			return errors.Join(err, failed)
		}
	}
}

// spend gives the reserve up for a write that found the disk full and cannot be repeated: who tries again later has room.
func (r *reserve) spend(failed error) {
	if r == nil || !foundFull(failed) {
		return
	}
	if _, err := r.giveUp(r.given.Load(), failed); err != nil {
		r.logger.Error("the reserve of the raft log cannot be given up", "error", err)
	}
}

func foundFull(err error) bool {
	return err != nil && errdef.ReasonOf(durable.Wrap(err, "full")) == errdef.StorageFull
}

// giveUp removes the reserve and tells whether there may be room now for a write that failed, which began when the reserve
// had been given up so many times.
func (r *reserve) giveUp(given int64, failed error) (room bool, err error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	if r.given.Load() != given {
		return true, nil
	}
	bytes := r.kept.Load()
	if bytes == 0 {
		return false, nil
	}
	if err := r.remove(); err != nil {
		return false, err
	}
	r.kept.Store(0)
	r.given.Add(1)
	r.logger.Error("the disk is full: the reserve of the raft log was given up; free space or enlarge the volume",
		"bytes", bytes, "error", failed)
	return true, nil
}

// remake makes a reserve again that was given up, or had no room.
func (r *reserve) remake() {
	if r.kept.Load() == r.size {
		return
	}
	if err := r.fit(); err != nil {
		r.logger.Error("the reserve of the raft log cannot be made again", "error", err)
	} else if r.kept.Load() == r.size {
		r.logger.Info("there is room again: the reserve of the raft log was made again", "bytes", r.size)
	}
}

// watchReserve makes the reserve again when there is room, until the node shuts down.
func (c *Cluster) watchReserve() {
	ticker := time.NewTicker(remakeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			c.storage.reserve.remake()
		case <-c.lifetime.Done():
			return
		}
	}
}

// ReserveGivenUp tells that the disk is full, and that the raft log has the last of it (Config.ReserveBytes).
func (c *Cluster) ReserveGivenUp() bool {
	r := c.storage.reserve
	return r.size > 0 && r.kept.Load() == 0
}
