package cluster

import (
	"errors"
	"log/slog"
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

// storage is what Raft keeps in DataDir/raft.
type storage struct {
	bolt      *raftboltdb.BoltStore // under both of these
	logs      raft.LogStore
	stable    raft.StableStore
	snapshots raft.SnapshotStore
}

func openStorage(cfg Config, logger *slog.Logger) (*storage, error) {
	dir := filepath.Join(cfg.DataDir, "raft")
	for _, made := range []string{cfg.DataDir, dir} {
		if err := durable.MakeDir(made, 0o700); err != nil {
			return nil, err
		}
	}
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path: filepath.Join(dir, "raft.db"),
		BoltOptions: &bbolt.Options{
			Timeout: lockTimeout, // zero would wait for ever
			// The freelist is rebuilt at start instead of written with each commit, and kept in a map: a log that
			// is truncated all the time has a long one.
			NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
		},
	})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, errdef.Wrap(errdef.StorageFailed, err, "data directory %s is used by another process", cfg.DataDir).
			WithRemedy("stop that process, or set another data-dir")
	}
	if err != nil {
		return nil, durable.Wrap(err, "cannot open the raft log in %s", dir)
	}
	disk := diskWatch{limit: cfg.Timings.Disk, fatal: cfg.Fatal}
	s := &storage{bolt: bolt, stable: watchedStable{bolt, disk}}
	if err := s.open(dir, disk, logger); err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	return s, nil
}

func (s *storage) open(dir string, disk diskWatch, logger *slog.Logger) error {
	var err error
	if s.logs, err = raft.NewLogCache(cachedEntries, watchedLogs{s.bolt, disk}); err != nil {
		return errdef.Wrap(errdef.Internal, err, "log cache")
	}
	s.snapshots, err = raft.NewFileSnapshotStoreWithLogger(dir, keptSnapshots, newHCLogger(logger, "snapshot"))
	if err != nil {
		return durable.Wrap(err, "cannot open the snapshots in %s", dir)
	}
	return durable.SyncDir(dir)
}

// hasState tells whether Raft ever wrote a term, an entry or a snapshot here.
func (s *storage) hasState() (bool, error) {
	has, err := raft.HasExistingState(s.logs, s.bolt, s.snapshots)
	if err != nil {
		return false, durable.Wrap(err, "cannot read the raft state")
	}
	return has, nil
}

// ownerKey is the key in the stable store that ties it to one node id.
const ownerKey = "OcisternNodeID"

// owner returns the node whose votes are in this store, empty for a store that was just created.
func (s *storage) owner() (catalog.NodeID, error) {
	id, err := s.bolt.Get([]byte(ownerKey))
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return "", nil
	}
	if err != nil {
		return "", durable.Wrap(err, "cannot read the owner of the raft state")
	}
	return catalog.NodeID(id), nil
}

func (s *storage) setOwner(id catalog.NodeID) error {
	if err := s.bolt.Set([]byte(ownerKey), []byte(id)); err != nil {
		return durable.Wrap(err, "cannot write the owner of the raft state")
	}
	return nil
}

func (s *storage) close() error {
	if err := s.bolt.Close(); err != nil {
		return durable.Wrap(err, "cannot close the raft log")
	}
	return nil
}
