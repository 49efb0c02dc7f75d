package cluster

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// nodeFile holds the identity of a node, in its data directory.
const nodeFile = "node.json"

// record is the content of node.json.
type record struct {
	ID catalog.NodeID `json:"id"`
	// ClusterID is set once, when this node becomes a member, and never changes while the disk lives.
	ClusterID string `json:"clusterId,omitempty"`
	// Promise is what reserves this node before it is a member.
	Promise *Promise `json:"promise,omitempty"`
	// FeatureLevel is the highest level whose entries this node may have applied; absent for the first.
	FeatureLevel catalog.FeatureLevel `json:"featureLevel,omitempty"`
	// Rejoin is what a node that has lost its Raft state may become a member of, and nothing else.
	Rejoin *rejoin `json:"rejoin,omitempty"`
	// Voters are those of the cluster, as this node last knew them.
	Voters []catalog.NodeID `json:"voters,omitempty"`
	// Restoring is set while a snapshot is restored here that the other voters may never hear of.
	Restoring bool `json:"restoring,omitempty"`
	// Formers are the clusters that were recovered, one after the other, as this one, oldest first. Formerly is the last:
	// earlier builds know only that one.
	Formers  []string `json:"formers,omitempty"`
	Formerly string   `json:"formerly,omitempty"`
	// Forks are clusters that this node's was recovered as by mistake: it still served.
	Forks []string `json:"forks,omitempty"`
	// Recovery is set while Recover is under way.
	Recovery *recovery `json:"recovery,omitempty"`
	// Retired tells that this id takes no part in its cluster any more, and never will.
	Retired *retirement `json:"retired,omitempty"`
}

// retirement is the end of a node id.
type retirement struct {
	Reason errdef.Reason `json:"reason"` // REMOVED or DIVERGED
	Text   string        `json:"text"`
	Time   time.Time     `json:"time"`
}

// rejoin binds a node to the cluster that it was a member of under another id.
type rejoin struct {
	ClusterID string         `json:"clusterId"`
	Was       catalog.NodeID `json:"was"`
	// Voters are those of the cluster, as the node last knew them.
	Voters []catalog.NodeID `json:"voters,omitempty"`
}

// told returns the cluster that this node is a member of, is promised to or must rejoin.
func (r record) told() string {
	switch {
	case r.ClusterID != "":
		return r.ClusterID
	case r.Promise != nil:
		return r.Promise.ClusterID
	case r.Rejoin != nil:
		return r.Rejoin.ClusterID
	}
	return ""
}

// formers returns all clusters that were recovered as this one, oldest first.
func (r record) formers() []string {
	if r.Formerly == "" {
		return r.Formers
	}
	return catalog.WithFormers(r.Formers, r.Formerly)
}

// withFormers adds clusters that were recovered as this one.
func (r record) withFormers(more ...string) record {
	if formers := catalog.WithFormers(r.formers(), more...); len(formers) > 0 {
		r.Formers, r.Formerly = formers, formers[len(formers)-1]
	}
	return r
}

// alone tells that this node knows of no voter but itself: what is lost here is lost.
func (r record) alone() bool {
	return !slices.ContainsFunc(r.Voters, func(id catalog.NodeID) bool { return id != r.ID })
}

// successor is the identity of a node whose Raft state is gone. Its votes are gone, too, so the id is never used again; and
// it has been a member, so it must not bootstrap.
func (r record) successor() (record, error) {
	next := record{ID: catalog.NodeID(newID()), Rejoin: r.Rejoin}
	if r.ClusterID == "" {
		return next, nil
	}
	if r.alone() {
		return record{}, errdef.New(errdef.ContentCorrupt, "the raft state of node %s is gone, and no other voter of cluster %s "+
			"is known", r.ID, r.ClusterID).WithRemedy(aloneRemedy)
	}
	next.Rejoin = &rejoin{ClusterID: r.ClusterID, Was: r.ID, Voters: r.Voters}
	return next, nil
}

// aloneRemedy is for a node that has lost what nobody else has.
const aloneRemedy = "bring back the data directory from a copy; or start with an empty one and bring back the catalog: " +
	"ocistern snapshot restore FILE --yes --force"

// identity is who this node is, on disk in node.json. Each change is durable before the method that made it returns.
// A node id is tied to one Raft store: votes that were lost with the store must never be cast again under the same id.
type identity struct {
	path    string
	reserve *reserve   // nil for none
	writing sync.Mutex // serializes changes of now
	now     atomic.Pointer[record]
}

const restoreRemedy = "restore node.json, or empty the data directory: the node then rejoins under a new id"

// openIdentity reads node.json, or draws a new id for a data directory without it. A store that was lost or emptied
// while node.json stayed retires the id.
func openIdentity(dir string, store *storage) (*identity, error) {
	i := &identity{path: filepath.Join(dir, nodeFile), reserve: store.reserve}
	owner, err := store.owner()
	if err != nil {
		return nil, err
	}
	found, err := readRecord(i.path)
	if err != nil {
		return nil, err
	}
	if owner == "" { // nothing was ever promised or voted out of this store
		if found, err = found.successor(); err != nil {
			return nil, err
		}
		if err := i.write(found); err != nil {
			return nil, err
		}
		return i, store.setOwner(found.ID)
	}
	if found.ID != owner {
		return nil, errdef.New(errdef.ContentCorrupt, "%s says node %q, but the raft state is of node %s",
			i.path, found.ID, owner).WithRemedy(restoreRemedy)
	}
	i.now.Store(&found)
	if err := found.understood(dir); err != nil {
		return nil, err
	}
	return i, i.checkState(store)
}

// checkState refuses Raft state that no cluster id vouches for, and completes a bootstrap that a crash interrupted.
func (i *identity) checkState(store *storage) error {
	has, err := store.hasState()
	if err != nil || !has || i.current().ClusterID != "" {
		return err
	}
	if p := i.current().Promise; p != nil && p.Proposer == i.current().ID {
		return i.join(p.ClusterID)
	}
	return errdef.New(errdef.ContentCorrupt, "there is raft state beside %s, which names no cluster", i.path).
		WithRemedy(restoreRemedy)
}

func readRecord(path string) (record, error) {
	encoded, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err != nil {
		return record{}, durable.Wrap(err, "cannot read %s", path)
	}
	var r record
	if err := json.Unmarshal(encoded, &r); err != nil {
		return record{}, errdef.Wrap(errdef.ContentCorrupt, err, "%s is damaged", path).
			WithRemedy(restoreRemedy)
	}
	return r, nil
}

// understood refuses what a newer build left in a data directory.
func (r record) understood(dir string) error {
	if r.FeatureLevel > fsm.MaxLevel {
		return errdef.New(errdef.VersionTooOld, "%s is at feature level %d, this build supports %d",
			dir, r.FeatureLevel, fsm.MaxLevel).WithRemedy("run the newer version of ocistern that ran here before")
	}
	return nil
}

// newID draws an id of 130 random bits, in lower case.
func newID() string { return strings.ToLower(rand.Text()) }

// current returns the record. It never blocks.
func (i *identity) current() record { return *i.now.Load() }

// write makes r durable, then current. The caller holds writing, or is alone.
func (i *identity) write(r record) error {
	encoded, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return errdef.Wrap(errdef.Internal, err, "node.json")
	}
	write := func() error { return durable.WriteFile(i.path, append(encoded, '\n'), 0o600) }
	if err := i.reserve.rescue(write); err != nil {
		return err
	}
	i.now.Store(&r)
	return nil
}

// join makes this node a member of a cluster for good. It fails with reason CLUSTER_MISMATCH when the node is a
// member of another one or promised to another one.
func (i *identity) join(clusterID string) error {
	i.writing.Lock()
	defer i.writing.Unlock()
	r := i.current()
	if r.ClusterID == clusterID {
		return nil
	}
	if told := r.told(); told != "" && told != clusterID {
		return mismatch(r, clusterID)
	}
	return i.write(record{ID: r.ID, ClusterID: clusterID, FeatureLevel: r.FeatureLevel, Voters: r.Voters})
}

// reach records that entries of a feature level are about to be applied.
func (i *identity) reach(level catalog.FeatureLevel) error {
	i.writing.Lock()
	defer i.writing.Unlock()
	r := i.current()
	if level <= max(r.FeatureLevel, catalog.LevelFirst) {
		return nil
	}
	r.FeatureLevel = level
	return i.write(r)
}

// pledge reserves this node for the cluster of p. The same promise may be given again; any other one is refused with
// reason CLUSTER_MISMATCH until it is withdrawn.
func (i *identity) pledge(p Promise) error {
	i.writing.Lock()
	defer i.writing.Unlock()
	r := i.current()
	if r.ClusterID == "" && r.Promise != nil && r.Promise.equal(p) {
		return nil
	}
	if r.told() != "" {
		return mismatch(r, p.ClusterID)
	}
	return i.write(record{ID: r.ID, Promise: &p})
}

// change makes a durable change to the record, unless it is no change.
func (i *identity) change(apply func(*record)) error {
	i.writing.Lock()
	defer i.writing.Unlock()
	r := i.current()
	apply(&r)
	if reflect.DeepEqual(r, i.current()) {
		return nil
	}
	return i.write(r)
}

// retire ends the id of this node for good. The first reason stays.
func (i *identity) retire(reason errdef.Reason, text string) error {
	i.writing.Lock()
	defer i.writing.Unlock()
	r := i.current()
	if r.Retired != nil {
		return nil
	}
	r.Retired = &retirement{Reason: reason, Text: text, Time: time.Now().UTC()}
	return i.write(r)
}

// unfinished returns an error while a recovery that was begun is not finished.
func (i *identity) unfinished() error {
	if i.current().Recovery == nil {
		return nil
	}
	return errdef.New(errdef.NotReady, "the recovery of this node was interrupted").
		WithRemedy("run it again: ocistern recover --data-dir %s --force", filepath.Dir(i.path))
}

// retired returns why this id takes no part any more, with the way back, or nil.
func (i *identity) retired() error {
	r := i.current().Retired
	if r == nil {
		return nil
	}
	failure := errdef.New(r.Reason, "%s", r.Text)
	dir := filepath.Dir(i.path)
	if r.Reason == errdef.Diverged {
		return failure.WithRemedy("keep %s for a report, and start the node with an empty data directory: it joins again "+
			"under a new id", dir)
	}
	return failure.WithRemedy("stop the node; should it join again, under a new id, delete node.json and raft in %s first", dir)
}

// withdraw gives up the promise to a cluster, if there is one and it was not kept yet.
func (i *identity) withdraw(clusterID string) error {
	i.writing.Lock()
	defer i.writing.Unlock()
	r := i.current()
	if r.ClusterID != "" || r.Promise == nil || r.Promise.ClusterID != clusterID {
		return nil
	}
	return i.write(record{ID: r.ID})
}

func mismatch(r record, clusterID string) error {
	if r.ClusterID == "" {
		return errdef.New(errdef.ClusterMismatch, "node %s is promised to cluster %s, not to %s",
			r.ID, r.told(), clusterID)
	}
	return errdef.New(errdef.ClusterMismatch, "node %s belongs to cluster %s, not to %s", r.ID, r.ClusterID, clusterID)
}

func (p Promise) equal(other Promise) bool {
	return p.ClusterID == other.ClusterID && p.Proposer == other.Proposer &&
		slices.Equal(p.Candidates, other.Candidates)
}
