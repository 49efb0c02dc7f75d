package cluster

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// recovery is what node.json tells while a survivor is made a cluster of its own. Until it is gone, the node does not start.
type recovery struct {
	ClusterID string    `json:"clusterId"` // of the cluster to come
	Time      time.Time `json:"time"`
}

// Recover makes the node whose data directory this is the only voter of a new cluster with its catalog, for one that has lost
// its quorum for good. The node must not run. All entries of its log count as committed from now on.
//
// The cluster gets a new id, so that no node of the old one can speak to it: such a node must come back with an empty data
// directory. The node's own id stays, since its votes do: the term goes on, and who dials it by the old cluster's name is
// refused. Recover may be repeated after a crash at any instant, and then finishes under the id that was drawn first. It
// fails as Examine does.
func Recover(dataDir string, logger *slog.Logger) (clusterID string, err error) {
	s, err := openSurvivor(dataDir, logger)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, s.storage.close()) }()
	for _, step := range s.steps() {
		if err := step(); err != nil {
			return "", err
		}
	}
	return s.identity.current().ClusterID, nil
}

// survivor is a node that is opened to be examined or recovered.
type survivor struct {
	identity *identity
	storage  *storage
	catalog  *catalog.Catalog
	machine  *fsm.FSM
	stopped  error // the state machine met an entry that it does not understand
	logger   *slog.Logger
}

func openSurvivor(dataDir string, logger *slog.Logger) (*survivor, error) {
	if _, err := os.Stat(filepath.Join(dataDir, "raft", "raft.db")); err != nil {
		return nil, durable.Wrap(err, "there is no node in %s", dataDir)
	}
	cfg := Config{DataDir: dataDir, Timings: Timings{}.complete(), Fatal: func(error) {}}
	store, err := openStorage(cfg, nil, logger)
	if err != nil {
		return nil, err
	}
	// Only now: from here on no node runs here that could change node.json.
	id, err := survivorIdentity(dataDir, store)
	if err != nil {
		return nil, errors.Join(err, store.close())
	}
	s := &survivor{identity: id, storage: store, catalog: catalog.New(), logger: logger}
	s.machine = fsm.New(s.catalog, fsm.Options{Stop: func(err error) { s.stopped = err }})
	return s, nil
}

// survivorIdentity reads node.json of a node that may be recovered.
func survivorIdentity(dataDir string, store *storage) (*identity, error) {
	path := filepath.Join(dataDir, nodeFile)
	found, err := readRecord(path)
	if err != nil {
		return nil, err
	}
	if err := found.understood(dataDir); err != nil {
		return nil, err
	}
	if found.Retired != nil {
		return nil, errdef.New(found.Retired.Reason, "%s", found.Retired.Text).WithRemedy("choose another survivor")
	}
	if found.ClusterID == "" {
		return nil, errdef.New(errdef.NotReady, "the node in %s is no member of a cluster", dataDir).
			WithRemedy("choose another survivor")
	}
	owner, err := store.owner()
	if err == nil && owner != found.ID {
		err = errdef.New(errdef.ContentCorrupt, "%s says node %q, but the raft state is of node %q", path, found.ID, owner).
			WithRemedy("choose another survivor")
	}
	i := &identity{path: path}
	i.now.Store(&found)
	return i, err
}

// steps are what recovers a survivor, in order. Each is durable before the next one begins, and all may be repeated.
func (s *survivor) steps() []func() error {
	return []func() error{s.announce, s.isolate, s.finish}
}

// announce draws the new cluster's id. From here on the node does not start before it is recovered.
func (s *survivor) announce() error {
	r := s.identity.current()
	if r.Recovery != nil {
		return nil
	}
	r.Recovery = &recovery{ClusterID: newID(), Time: time.Now().UTC()}
	return s.identity.write(r)
}

// isolate writes a snapshot of a cluster of one and empties the log.
func (s *survivor) isolate() error {
	self, err := s.self()
	if err != nil {
		return err
	}
	last, err := s.lastIndex()
	if err != nil {
		return err
	}
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger = self.ID, newHCLogger(s.logger, "raft")
	_, nobody := raft.NewInmemTransport(self.Address) // only asked how an address is written
	alone := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: self.ID, Address: self.Address}}}
	moved := isolated{FSM: s.machine, survivor: s, index: last}
	err = raft.RecoverCluster(conf, moved, s.storage.logs, s.storage.stable, s.storage.snapshots, nobody, alone)
	if s.stopped != nil {
		return s.stopped
	}
	if err != nil {
		return durable.Wrap(err, "cannot recover the raft state")
	}
	return nil
}

// isolated is a state machine whose snapshot belongs to the new cluster.
type isolated struct {
	*fsm.FSM
	survivor *survivor
	index    catalog.LogIndex
}

// Snapshot implements raft.FSM.
func (i isolated) Snapshot() (raft.FSMSnapshot, error) {
	r := i.survivor.identity.current()
	self := func(id catalog.NodeID) bool { return id == r.ID }
	if err := fsm.Replant(i.survivor.catalog, r.Recovery.ClusterID, i.index, self); err != nil {
		return nil, err
	}
	return i.FSM.Snapshot()
}

// finish makes the node a member of the new cluster.
func (s *survivor) finish() error {
	r := s.identity.current()
	recovered := record{ID: r.ID, ClusterID: r.Recovery.ClusterID, FeatureLevel: s.catalog.Snapshot().FeatureLevel()}
	return s.identity.write(recovered.withFormers(s.formers()...))
}

// formers returns the clusters that the recovered one was before, as node.json and the catalog know them.
func (s *survivor) formers() []string {
	r := s.identity.current()
	known := slices.DeleteFunc(slices.Clone(s.catalog.Snapshot().Formers()), func(id string) bool { return id == r.ClusterID })
	return append(catalog.WithFormers(known, r.formers()...), r.ClusterID)
}

// self returns this node as the last configuration has it.
func (s *survivor) self() (raft.Server, error) {
	servers, err := s.servers()
	if err != nil {
		return raft.Server{}, err
	}
	id := raft.ServerID(s.identity.current().ID)
	at := slices.IndexFunc(servers, func(server raft.Server) bool { return server.ID == id })
	if at < 0 {
		return raft.Server{}, errdef.New(errdef.NotReady, "node %s is not in its cluster's configuration", id).
			WithRemedy("choose another survivor")
	}
	return servers[at], nil
}

// lastIndex returns the index of the last entry, be it in the log or in a snapshot.
func (s *survivor) lastIndex() (catalog.LogIndex, error) {
	last, err := s.storage.logs.LastIndex()
	if err != nil {
		return 0, durable.Wrap(err, "cannot read the raft log")
	}
	found, err := s.storage.snapshots.List()
	if err != nil {
		return 0, durable.Wrap(err, "cannot list the snapshots")
	}
	for _, meta := range found {
		last = max(last, meta.Index)
	}
	return catalog.LogIndex(last), nil
}
