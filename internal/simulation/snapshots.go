package simulation

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hashicorp/raft"
)

// keptSnapshots is how many package cluster keeps.
const keptSnapshots = 2

// snapshot is a whole one.
type snapshot struct {
	meta    raft.SnapshotMeta
	content []byte
}

// snapshots implements raft.SnapshotStore.
type snapshots struct{ mounted }

func (s snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &sink{snapshots: s, made: &snapshot{meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term,
		Configuration: configuration.Clone(), ConfigurationIndex: configurationIndex,
	}}}, nil
}

func (s snapshots) List() ([]*raft.SnapshotMeta, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var metas []*raft.SnapshotMeta
	for _, kept := range s.snapshots {
		meta := kept.meta
		metas = append(metas, &meta)
	}
	return metas, nil
}

func (s snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, kept := range s.snapshots {
		if kept.meta.ID == id {
			meta := kept.meta
			return &meta, io.NopCloser(bytes.NewReader(kept.content)), nil
		}
	}
	return nil, nil, errors.New("no snapshot " + id)
}

// sink is a snapshot being written.
type sink struct {
	snapshots snapshots
	made      *snapshot
	written   bytes.Buffer
	cancelled bool
}

func (s *sink) Write(data []byte) (int, error) { return s.written.Write(data) }
func (s *sink) ID() string                     { return s.made.meta.ID }

func (s *sink) Cancel() error {
	s.cancelled = true
	return nil
}

// Close makes the snapshot durable.
func (s *sink) Close() error {
	if s.cancelled {
		return nil
	}
	s.made.content = s.written.Bytes()
	s.made.meta.Size = int64(len(s.made.content))
	k := s.snapshots.disk
	return s.snapshots.write(func() {
		k.snapshots = slices.Insert(k.snapshots, 0, s.made)
		slices.SortStableFunc(k.snapshots, func(a, b *snapshot) int {
			return cmp.Or(cmp.Compare(b.meta.Term, a.meta.Term), cmp.Compare(b.meta.Index, a.meta.Index))
		})
		k.snapshots = k.snapshots[:min(len(k.snapshots), keptSnapshots)]
	})
}
