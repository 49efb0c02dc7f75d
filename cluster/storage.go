package cluster

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

const (
	// lockTimeout is how long a process waits for its predecessor to let go of the data directory.
	lockTimeout = 2 * time.Second
	// cachedEntries of the log are kept in memory, so that followers are sent entries without reading the disk.
	cachedEntries = 512
	// keptSnapshots is one more than needed: should the newest be unreadable, the one before is used.
	keptSnapshots = 2
)

// raftDir is the directory of what Raft writes, in the data directory.
const raftDir = "raft"

// storage is what Raft keeps, watched.
type storage struct {
	logs      raft.LogStore
	stable    raft.StableStore
	snapshots raft.SnapshotStore
	release   func() error
	reserve   *reserve
	newest    func() position // of the snapshots; safe for concurrent use
	turn      *turn           // of who makes a snapshot
}

// openStorage opens the disk of cfg, whose data directory exists. kept may be nil.
func openStorage(cfg Config, kept *reserve, logger *slog.Logger) (*storage, error) {
	open := cfg.Environment.OpenDisk
	if open == nil {
		open = func() (Disk, error) { return openBolt(cfg.DataDir, logger) }
	}
	var disk Disk
	err := kept.rescue(func() (err error) { // making a store, and repairing one, writes
		disk, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	s, err := watch(disk, diskWatch{limit: cfg.Timings.Disk, fatal: cfg.Fatal, reserve: kept})
	if err != nil {
		return nil, errors.Join(err, disk.Close())
	}
	s.reserve = kept
	return s, nil
}

// watch puts between Raft and a disk what ends the node when the disk fails, hangs, or holds a log that must go.
func watch(disk Disk, watched diskWatch) (*storage, error) {
	if err := discard(watchedLogs{disk.Logs, watched}, disk.Snapshots); err != nil {
		return nil, err
	}
	logs, err := raft.NewLogCache(cachedEntries, watchedLogs{disk.Logs, watched})
	if err != nil {
		return nil, errdef.Wrap(errdef.Internal, err, "log cache")
	}
	snapshots, err := newCheckedSnapshots(disk.Snapshots, logs, watched)
	if err != nil {
		return nil, err
	}
	return &storage{
		logs: logs, stable: watchedStable{disk.Stable, watched}, release: disk.Close, snapshots: snapshots, newest: snapshots.end,
		turn: snapshots.turn,
	}, nil
}

// openBolt opens the log, the stable store and the snapshots in dataDir/raft, after it has checked them.
func openBolt(dataDir string, logger *slog.Logger) (Disk, error) {
	dir := filepath.Join(dataDir, raftDir)
	if err := durable.MakeDir(dir, 0o700); err != nil {
		return Disk{}, err
	}
	path := filepath.Join(dir, "raft.db")
	found, err := checkBolt(path)
	if err != nil {
		return Disk{}, boltError(err, dataDir)
	}
	bolt, err := openBoltStore(path)
	if err != nil {
		return Disk{}, boltError(err, dataDir)
	}
	// raft would make it, and not say when there is no room for it.
	if err := durable.MakeDir(filepath.Join(dir, "snapshots"), 0o755); err != nil {
		return Disk{}, errors.Join(err, bolt.Close())
	}
	required := requiresChecksums(bolt)
	disk := Disk{Logs: checkedLogs{bolt, required}, Stable: checkedStable{bolt, required}, Close: bolt.Close}
	disk.Snapshots, err = raft.NewFileSnapshotStoreWithLogger(dir, keptSnapshots, newHCLogger(logger, "snapshot"))
	if err != nil {
		return Disk{}, errors.Join(durable.Wrap(err, "cannot open the snapshots in %s", dir), bolt.Close())
	}
	setAside := func(id string, why error) error {
		to, err := setAside(dataDir, filepath.Join(dir, "snapshots", id), "snapshot")
		if err == nil {
			logger.Error("a snapshot is damaged and was set aside; all that it held is in an older one and in the log",
				"snapshot", id, "moved", to, "error", why)
		}
		return err
	}
	if err := errors.Join(checkSnapshots(disk, dir, found, setAside), durable.SyncDir(dir)); err != nil {
		return Disk{}, errors.Join(err, bolt.Close())
	}
	return disk, nil
}

// openBoltStore opens a sound file, or makes a new one, in which every entry will have a checksum. Of a new one that there is
// no room for nothing stays: it would be taken for a damaged one.
func openBoltStore(path string) (bolt *raftboltdb.BoltStore, err error) {
	if _, before := os.Stat(path); errors.Is(before, fs.ErrNotExist) {
		defer func() {
			if err != nil {
				_ = os.Remove(path) // err says more
			}
		}()
	}
	err = guarded(func() error {
		bolt, err = raftboltdb.New(raftboltdb.Options{
			Path: path,
			BoltOptions: &bbolt.Options{
				Timeout: lockTimeout, // zero would wait for ever
				// The freelist is rebuilt at start instead of written with each commit, and kept in a map: a log that
				// is truncated all the time has a long one.
				NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
			},
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	if _, err = bolt.Get([]byte(ownerKey)); errors.Is(err, raftboltdb.ErrKeyNotFound) { // new: openIdentity takes it next
		err = bolt.Set([]byte(checksumsKey), []byte{1})
	}
	if err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	return bolt, nil
}

func boltError(err error, dataDir string) error {
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return errdef.Wrap(errdef.StorageFailed, err, "data directory %s is used by another process", dataDir).
			WithRemedy("stop that process, or set another data-dir")
	}
	return durable.Wrap(err, "cannot open the raft log in %s", dataDir)
}

// hasState tells whether Raft ever wrote a term, an entry or a snapshot here.
func (s *storage) hasState() (bool, error) {
	has, err := raft.HasExistingState(s.logs, s.stable, s.snapshots)
	if err != nil {
		return false, durable.Wrap(err, "cannot read the raft state")
	}
	return has, nil
}

// ownerKey is the key in the stable store that ties it to one node id.
const ownerKey = "OcisternNodeID"

// owner returns the node whose votes are in this store, empty for a store that was just created.
func (s *storage) owner() (catalog.NodeID, error) {
	id, err := s.stable.Get([]byte(ownerKey))
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return "", nil
	}
	if err != nil {
		return "", durable.Wrap(err, "cannot read the owner of the raft state")
	}
	return catalog.NodeID(id), nil
}

func (s *storage) setOwner(id catalog.NodeID) error {
	if err := s.stable.Set([]byte(ownerKey), []byte(id)); err != nil {
		return durable.Wrap(err, "cannot write the owner of the raft state")
	}
	return nil
}

func (s *storage) close() error {
	if err := s.release(); err != nil {
		return durable.Wrap(err, "cannot close the raft log")
	}
	return nil
}
