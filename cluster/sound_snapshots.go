package cluster

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// checkSnapshots looks for the newest sound snapshot, and sets those aside that are newer and are not. What this node has
// acknowledged must be there all the same: the log goes on from the sound one, and reaches every snapshot that is set aside.
// Nothing is set aside before that is known, so that a crash in between leaves what led to the verdict.
func checkSnapshots(disk Disk, dir string, log extent, setAside func(id string, why error) error) error {
	names, err := snapshotNames(dir)
	if err != nil {
		return err
	}
	var from uint64
	var bad []badSnapshot
	for _, name := range names {
		if name.index == 0 {
			bad = append(bad, badSnapshot{name, errdef.New(errdef.ContentCorrupt, "%q is no name of a snapshot", name.id)})
		} else if why := checkSnapshot(disk.Snapshots, name); why != nil {
			bad = append(bad, badSnapshot{name, why})
		} else {
			from = name.index
			break
		}
	}
	if log.Last > from && log.First > from+1 {
		return damaged("snapshot", nil, "entries %d to %d are neither in a sound snapshot nor in the log", from+1, log.First-1)
	}
	for _, b := range bad {
		if err := b.inLog(disk.Logs, log); err != nil {
			return err
		}
	}
	for _, b := range bad {
		if err := setAside(b.id, b.why); err != nil {
			return err
		}
	}
	return nil
}

// badSnapshot is one that cannot be used, and why.
type badSnapshot struct {
	snapshotName
	why error
}

// inLog fails unless the log has all that the snapshot stood for.
func (b badSnapshot) inLog(logs raft.LogStore, log extent) error {
	if b.index == 0 { // raft has not made it, and nothing was acknowledged for it
		return nil
	}
	if log.Last < b.index {
		return damaged("snapshot", b.why, "snapshot %s is damaged, and the log ends at entry %d before it", b.id, log.Last)
	}
	var entry raft.Log
	if err := logs.GetLog(b.index, &entry); err != nil || entry.Term != b.term {
		return damaged("snapshot", b.why, "snapshot %s is damaged, and the log has another entry %d", b.id, b.index)
	}
	return nil
}

// snapshotName is the name of a snapshot's directory, TERM-INDEX-MILLISECONDS. term and index are zero for another one.
type snapshotName struct {
	id          string
	term, index uint64
}

// snapshotNames returns the snapshots in the raft directory dir, newest first. raft itself passes silently over one whose
// description it cannot read.
func snapshotNames(dir string) ([]snapshotName, error) {
	found, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	if err != nil {
		return nil, durable.Wrap(err, "cannot list the snapshots")
	}
	var names []snapshotName
	for _, entry := range found {
		if strings.HasSuffix(entry.Name(), ".tmp") || !entry.IsDir() { // never finished; raft takes no file for a snapshot
			continue
		}
		name := snapshotName{id: entry.Name()}
		parts := strings.Split(name.id, "-")
		term, badTerm := strconv.ParseUint(parts[0], 10, 64)
		index, badIndex := strconv.ParseUint(parts[min(1, len(parts)-1)], 10, 64)
		if len(parts) == 3 && badTerm == nil && badIndex == nil && isNumber(parts[2]) {
			name.term, name.index = term, index
		}
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b snapshotName) int {
		return -cmp.Or(cmp.Compare(a.term, b.term), cmp.Compare(a.index, b.index), cmp.Compare(a.id, b.id))
	})
	return names, nil
}

func isNumber(text string) bool {
	_, err := strconv.ParseUint(text, 10, 64)
	return err == nil
}

// checkSnapshot verifies the checksum of a snapshot, and that its name says what its description does.
func checkSnapshot(store raft.SnapshotStore, name snapshotName) error {
	meta, content, err := store.Open(name.id) // reads all of it
	if err != nil {
		return err
	}
	if meta.ID != name.id || meta.Term != name.term || meta.Index != name.index {
		err = errdef.New(errdef.ContentCorrupt, "snapshot %s claims to be %s, of term %d and index %d", name.id, meta.ID,
			meta.Term, meta.Index)
	}
	return errors.Join(err, content.Close())
}
