package cluster

import (
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Survivor is what the disk of a stopped node holds.
type Survivor struct {
	Node      catalog.NodeID `json:"node"`
	ClusterID string         `json:"clusterId"`
	// Role is the node's own in the last configuration on its disk: a nonvoter may lack what the voters have acknowledged.
	Role Role `json:"role"`
	// Term is the highest the node has seen. Of several survivors, the one whose last entry has the highest term, and among
	// those the highest index, has all that any of them has.
	Term      uint64           `json:"term"`
	LastTerm  uint64           `json:"lastTerm"`
	LastIndex catalog.LogIndex `json:"lastIndex"`
	// SnapshotIndex is the last entry in the newest snapshot, which was taken at SnapshotTime; both are zero without one.
	SnapshotIndex catalog.LogIndex `json:"snapshotIndex"`
	SnapshotTime  time.Time        `json:"snapshotTime,omitzero"`
	// Others are the other voters.
	Others []Candidate `json:"otherVoters"`
	// Catalog counts what the node has, all entries of its log applied. OnlyElsewhere of its blobs are held by other nodes and
	// not by this one.
	Catalog       catalog.Stats `json:"catalog"`
	OnlyElsewhere int           `json:"blobsOnlyElsewhere"`
	// Unfinished tells that Recover was begun here. Restoring tells that this node was restoring a snapshot, which is the whole
	// catalog here, and that the other voters may not have it.
	Unfinished bool `json:"unfinished"`
	Restoring  bool `json:"restoring"`
}

// Examine reads the disk of a node that does not run, and changes nothing but what a start would: a damaged snapshot is set
// aside, a log that conflicts with a snapshot is emptied. It fails with reason STORAGE_FAILED when the node runs or its disk
// fails, NOT_READY when it is no member of a cluster, CONTENT_CORRUPT, COMMAND_UNKNOWN, or that of the node's retirement.
func Examine(dataDir string, logger *slog.Logger) (found Survivor, err error) {
	s, err := openSurvivor(dataDir, logger)
	if err != nil {
		return Survivor{}, err
	}
	defer func() { err = errors.Join(err, s.storage.close()) }()
	r := s.identity.current()
	found = Survivor{Node: r.ID, ClusterID: r.ClusterID, Unfinished: r.Recovery != nil, Restoring: r.Restoring, Others: []Candidate{}}
	self, err := s.self()
	if err != nil {
		return found, err
	}
	found.Role = roleOf(self)
	if err := s.replay(&found); err != nil {
		return found, err
	}
	if found.Term, err = s.storage.stable.GetUint64([]byte("CurrentTerm")); err != nil {
		return found, durable.Wrap(err, "cannot read the term")
	}
	servers, err := s.servers()
	for _, server := range servers {
		if server.Suffrage == raft.Voter && server.ID != raft.ServerID(r.ID) {
			found.Others = append(found.Others, Candidate{catalog.NodeID(server.ID), string(server.Address)})
		}
	}
	found.Catalog = s.catalog.Snapshot().Stats()
	for blob := range s.catalog.Snapshot().Blobs() {
		if len(blob.Holders) > 0 && !slices.Contains(blob.Holders, r.ID) {
			found.OnlyElsewhere++
		}
	}
	return found, err
}

// replay applies all that the disk has, committed or not, as Recover will.
func (s *survivor) replay(found *Survivor) error {
	if err := s.restoreNewest(found); err != nil {
		return err
	}
	last, err := s.storage.logs.LastIndex()
	if err != nil {
		return durable.Wrap(err, "cannot read the raft log")
	}
	for index := uint64(found.SnapshotIndex) + 1; index <= last; index++ {
		var entry raft.Log
		if err := s.storage.logs.GetLog(index, &entry); err != nil {
			return durable.Wrap(err, "cannot read entry %d of the raft log", index)
		}
		if entry.Type == raft.LogCommand {
			s.machine.Apply(&entry)
		}
		found.LastIndex, found.LastTerm = catalog.LogIndex(entry.Index), entry.Term
	}
	return s.stopped
}

func (s *survivor) restoreNewest(found *Survivor) error {
	listed, err := s.storage.snapshots.List()
	if err != nil {
		return durable.Wrap(err, "cannot list the snapshots")
	}
	var damage error
	for _, meta := range listed {
		_, source, err := s.storage.snapshots.Open(meta.ID)
		if err == nil {
			err = s.machine.Restore(source)
		}
		if err != nil {
			damage = err
			continue
		}
		found.SnapshotIndex, found.SnapshotTime = catalog.LogIndex(meta.Index), takenAt(meta)
		found.LastIndex, found.LastTerm = catalog.LogIndex(meta.Index), meta.Term
		return nil
	}
	if damage != nil {
		return errdef.Wrap(errdef.ContentCorrupt, damage, "no snapshot of this node can be read").
			WithRemedy("choose another survivor")
	}
	return nil
}

// takenAt reads the time from a snapshot's name, TERM-INDEX-MILLISECONDS; zero for another one.
func takenAt(meta *raft.SnapshotMeta) time.Time {
	milliseconds, err := strconv.ParseInt(meta.ID[strings.LastIndexByte(meta.ID, '-')+1:], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(milliseconds).UTC()
}

// servers returns the last configuration on the disk: the newest entry in the log that has one, else that of the newest
// snapshot.
func (s *survivor) servers() ([]raft.Server, error) {
	listed, err := s.storage.snapshots.List()
	if err != nil {
		return nil, durable.Wrap(err, "cannot list the snapshots")
	}
	var from uint64
	var configuration raft.Configuration
	if len(listed) > 0 {
		from, configuration = listed[0].Index, listed[0].Configuration
	}
	last, err := s.storage.logs.LastIndex()
	if err != nil {
		return nil, durable.Wrap(err, "cannot read the raft log")
	}
	for index := last; index > from; index-- {
		var entry raft.Log
		if err := s.storage.logs.GetLog(index, &entry); err != nil {
			return nil, durable.Wrap(err, "cannot read entry %d of the raft log", index)
		}
		if entry.Type == raft.LogConfiguration {
			return raft.DecodeConfiguration(entry.Data).Servers, nil
		}
	}
	return configuration.Servers, nil
}
