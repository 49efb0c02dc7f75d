package cluster

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// reserve is disk space that is kept for what must be written: the raft log, the term, node.json. When the disk is full it is
// given up, which says that the rest will be soon; it is made again when there is room. A nil reserve has no space.
type reserve struct {
	path   string
	size   int64
	logger *slog.Logger
	held   atomic.Bool
}

// remakeEvery is how often the reserve is looked at; remakeRoom is how many times its size must be free before it is made
// again, so that it is not taken from what it was given up for.
const (
	remakeEvery = 10 * time.Second
	remakeRoom  = 3
)

// openReserve keeps size bytes in dataDir, none when size is 0. A disk that has no room for it is not an error.
func openReserve(dataDir string, size int64, logger *slog.Logger) (*reserve, error) {
	r := &reserve{path: filepath.Join(dataDir, "reserve"), size: size, logger: logger}
	info, err := os.Stat(r.path)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, durable.Wrap(err, "cannot look at the reserve")
	case err == nil && info.Size() == size && size > 0:
		r.held.Store(true)
	case err == nil && size == 0:
		return r, r.remove()
	case size > 0:
		return r, r.make()
	}
	return r, nil
}

// make allocates the reserve, unless there is not room enough for it and more.
func (r *reserve) make() error {
	free, err := durable.Free(filepath.Dir(r.path))
	if err == nil && free < remakeRoom*r.size {
		r.logger.Warn("there is no room to keep a reserve for the raft log", "free", free, "reserve", r.size)
		return nil
	}
	if err == nil {
		err = durable.Allocate(r.path, r.size, 0o600)
	}
	if errdef.ReasonOf(err) == errdef.StorageFull {
		return nil // somebody was quicker
	}
	if err == nil {
		r.held.Store(true)
	}
	return err
}

func (r *reserve) remove() error {
	if err := os.Remove(r.path); err != nil {
		return durable.Wrap(err, "cannot give up the reserve")
	}
	return durable.SyncDir(filepath.Dir(r.path))
}

// rescue repeats a write that found the disk full, once, without the reserve. The write must be one that may be repeated.
func (r *reserve) rescue(write func() error) error {
	err := write()
	if r == nil || errdef.ReasonOf(durable.Wrap(err, "full")) != errdef.StorageFull || !r.held.CompareAndSwap(true, false) {
		return err
	}
	if failed := r.remove(); failed != nil {
		return errors.Join(err, failed)
	}
	r.logger.Error("the disk is full: the reserve of the raft log was given up; free space or enlarge the volume",
		"bytes", r.size, "error", err)
	return write()
}

// remake makes a reserve again that was given up.
func (r *reserve) remake() {
	if r.size == 0 || r.held.Load() {
		return
	}
	if err := r.make(); err != nil {
		r.logger.Error("the reserve of the raft log cannot be made again", "error", err)
	} else if r.held.Load() {
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
	return r.size > 0 && !r.held.Load()
}
