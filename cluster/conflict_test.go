package cluster

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/internal/errdef"
)

// conflictIndex is where the follower's log, of term 1, conflicts with the leader's snapshot, of term 2.
const conflictIndex = 5

// A follower whose log conflicts with the snapshot it is sent ends, discards its log and catches up (raft issue 697).
// Without the remedy it is sent the same snapshot again and again: that is how this test knows the fault.
func TestConflictingLogIsDiscarded(t *testing.T) {
	t.Parallel()
	pair := newConflict(t)
	running, ended := pair.start(true)
	pair.until("the follower ends", func() bool { return ended.Load() != nil })
	if err := *ended.Load(); !errors.Is(err, errdef.ErrLogConflict) {
		t.Fatalf("ended with %v", err)
	}
	must(t, running.Shutdown().Error())

	running, _ = pair.start(true)
	pair.until("the follower has the leader's log", func() bool {
		return running.AppliedIndex() == pair.leader.AppliedIndex() && running.AppliedIndex() > conflictIndex
	})
	must(t, running.Shutdown().Error())
}

func TestConflictingLogWithoutRemedy(t *testing.T) {
	t.Parallel()
	pair := newConflict(t)
	running, _ := pair.start(false)
	pair.until("the follower is sent the snapshot again", func() bool { return pair.received.Load() >= 3 })
	if running.AppliedIndex() > conflictIndex {
		t.Fatal("raft gets by without the remedy now: cluster/conflict.go may go")
	}
	must(t, running.Shutdown().Error())
}

// conflict is a leader with nothing but a snapshot and a follower with a log that conflicts with it.
type conflict struct {
	t        *testing.T
	leader   *raft.Raft
	config   raft.Configuration
	links    map[raft.ServerID]*raft.InmemTransport
	disk     Disk // the follower's
	received atomic.Int64
}

func newConflict(t *testing.T) *conflict {
	p := &conflict{t: t, links: map[raft.ServerID]*raft.InmemTransport{}}
	for _, id := range []raft.ServerID{"leader", "follower"} {
		_, p.links[id] = raft.NewInmemTransport(raft.ServerAddress(id))
		p.config.Servers = append(p.config.Servers, raft.Server{ID: id, Address: raft.ServerAddress(id)})
	}
	p.links["leader"].Connect("follower", p.links["follower"])
	p.links["follower"].Connect("leader", p.links["leader"])

	followerLog := raft.NewInmemStore()
	p.disk = Disk{
		Logs: followerLog, Stable: followerLog, Snapshots: countedSnapshots{raft.NewInmemSnapshotStore(), &p.received},
		Close: func() error { return nil },
	}
	must(t, followerLog.SetUint64([]byte("CurrentTerm"), 1))
	must(t, followerLog.StoreLog(&raft.Log{
		Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(p.config),
	}))
	for index := uint64(2); index <= conflictIndex+2; index++ {
		must(t, followerLog.StoreLog(&raft.Log{Index: index, Term: 1, Data: []byte("never committed")}))
	}

	leaderLog, snapshots := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	must(t, leaderLog.SetUint64([]byte("CurrentTerm"), 2))
	sink, err := snapshots.Create(1, conflictIndex, 2, p.config, 1, p.links["leader"])
	must(t, err)
	captured, err := (&raft.MockFSM{}).Snapshot()
	must(t, err)
	must(t, captured.Persist(sink))
	p.leader, err = raft.NewRaft(p.settings("leader"), &raft.MockFSM{}, leaderLog, leaderLog, snapshots, p.links["leader"])
	must(t, err)
	t.Cleanup(func() { must(t, p.leader.Shutdown().Error()) })
	return p
}

func (p *conflict) settings(id raft.ServerID) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger = id, newHCLogger(testLogger(string(id)), "raft")
	conf.HeartbeatTimeout, conf.ElectionTimeout = 300*time.Millisecond, 300*time.Millisecond
	conf.LeaderLeaseTimeout, conf.CommitTimeout = 200*time.Millisecond, 10*time.Millisecond
	return conf
}

// start runs the follower on its disk and tells why it was ended.
func (p *conflict) start(remedy bool) (*raft.Raft, *atomic.Pointer[error]) {
	p.t.Helper()
	ended := &atomic.Pointer[error]{}
	s := &storage{logs: p.disk.Logs, stable: p.disk.Stable, snapshots: p.disk.Snapshots}
	if remedy {
		var err error
		s, err = watch(p.disk, diskWatch{limit: patience, fatal: func(err error) { ended.CompareAndSwap(nil, &err) }})
		must(p.t, err)
	}
	running, err := raft.NewRaft(p.settings("follower"), &raft.MockFSM{}, s.logs, s.stable, s.snapshots,
		p.links["follower"])
	must(p.t, err)
	return running, ended
}

// sendSnapshot puts the leader's snapshot onto the follower's disk, as if it had been received just before a crash.
func (p *conflict) sendSnapshot() {
	sink, err := p.disk.Snapshots.Create(1, conflictIndex, 2, p.config, 1, p.links["leader"])
	must(p.t, err)
	captured, err := (&raft.MockFSM{}).Snapshot()
	must(p.t, err)
	must(p.t, captured.Persist(sink))
}

func (p *conflict) until(what string, reached func() bool) {
	(&fleet{t: p.t}).eventually(what, func() error {
		if !reached() {
			return errdef.New(errdef.NotReady, "%d snapshots received", p.received.Load())
		}
		return nil
	})
}

// countedSnapshots counts what is received.
type countedSnapshots struct {
	raft.SnapshotStore
	received *atomic.Int64
}

func (s countedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	s.received.Add(1)
	return s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
}
