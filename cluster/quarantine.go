package cluster

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// quarantineDir holds, in the data directory, what could not be used any more, until somebody deletes it.
const quarantineDir = "quarantine"

// openState opens what Raft wrote and the identity that goes with it. Raft state that is damaged is set aside, and with it the
// node's id; the node then waits, under a new id, to be added to the cluster that it was a member of. That is no worse than
// the loss of its disk. Where no other voter is known, nothing is set aside: nobody could bring it back.
func openState(cfg Config, logger *slog.Logger) (*storage, *identity, error) {
	if err := durable.MakeDir(cfg.DataDir, 0o700); err != nil {
		return nil, nil, err
	}
	kept, err := openReserve(cfg.DataDir, cfg.ReserveBytes, logger)
	if err != nil {
		return nil, nil, err
	}
	store, id, err := tryState(cfg, kept, logger)
	var found damage
	if !errors.As(err, &found) || cfg.Environment.OpenDisk != nil {
		return store, id, err
	}
	// Moving comes last, so that it may be repeated.
	if err := kept.rescue(func() error { return quarantine(cfg.DataDir, found, logger) }); err != nil {
		return nil, nil, err
	}
	return tryState(cfg, kept, logger)
}

func tryState(cfg Config, kept *reserve, logger *slog.Logger) (*storage, *identity, error) {
	store, err := openStorage(cfg, kept, logger)
	if err != nil {
		return nil, nil, err
	}
	id, err := openIdentity(cfg.DataDir, store)
	if err == nil {
		err = errors.Join(id.retired(), id.unfinished())
	}
	if err == nil && id.current().Restoring {
		err = interrupted(id)
	}
	if err != nil {
		return nil, nil, errors.Join(err, store.close())
	}
	return store, id, nil
}

// interrupted judges a restore that did not end here. raft would let this node follow a leader that never heard of it, with
// the restored catalog and the leader's log: it would differ from all others and not know it. A node that is alone has
// restored or not, and that is all.
func interrupted(id *identity) error {
	if id.current().alone() {
		return id.change(func(r *record) { r.Restoring = false })
	}
	return damaged("restore", nil, "the restore of a snapshot was interrupted on this node")
}

// quarantine moves the Raft state away, and leaves a copy of node.json with it. openIdentity draws the new id.
func quarantine(dataDir string, found damage, logger *slog.Logger) error {
	path := filepath.Join(dataDir, nodeFile)
	r, err := readRecord(path)
	switch {
	case err != nil:
		return errors.Join(found.error, err)
	case r.Retired != nil, r.Recovery != nil: // somebody has to look at it anyway
		return found.error
	case r.ClusterID != "" && r.alone(), r.Promise != nil:
		return errdef.Wrap(errdef.ContentCorrupt, found.error, "no other voter of cluster %q is known to node %s",
			r.told(), r.ID).WithRemedy(aloneRemedy)
	}
	to, err := setAside(dataDir, filepath.Join(dataDir, raftDir), found.kind)
	if err != nil {
		return err
	}
	logger.Error("the raft state of this node is damaged and was set aside; the node waits to be added to its cluster again, "+
		"under a new id", "moved", to, "node", r.ID, "cluster", r.ClusterID, "error", found.error)
	return nil
}

// setAside moves a file or directory into a new directory of the quarantine, with a copy of node.json, and returns where
// it is now.
func setAside(dataDir, what, kind string) (string, error) {
	place := filepath.Join(dataDir, quarantineDir, time.Now().UTC().Format("20060102T150405.000Z")+"-"+kind)
	if err := durable.MakeDir(place, 0o700); err != nil {
		return "", err
	}
	identity, err := os.ReadFile(filepath.Join(dataDir, nodeFile))
	if err == nil {
		err = durable.WriteFile(filepath.Join(place, nodeFile), identity, 0o600)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", durable.Wrap(err, "cannot copy %s", nodeFile)
	}
	to := filepath.Join(place, filepath.Base(what))
	if err := durable.Rename(what, to); err != nil {
		return "", err
	}
	return to, durable.SyncDir(filepath.Dir(what))
}
