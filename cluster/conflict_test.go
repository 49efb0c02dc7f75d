package cluster

import (
	"errors"
	"sync"
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

// A snapshot with which the log conflicts is kept and not installed: what raft then took and acknowledged would be discarded with
// the log.
func TestConflictingSnapshotIsNotInstalled(t *testing.T) {
	t.Parallel()
	pair := newConflict(t)
	var told error
	s, err := watch(pair.disk, diskWatch{limit: patience, fatal: func(err error) { told = err }})
	must(t, err)
	sink, err := s.snapshots.Create(1, conflictIndex, 2, pair.config, 1, pair.links["follower"])
	must(t, err)
	if err := sink.Close(); !errors.Is(err, errdef.ErrLogConflict) || !errors.Is(told, errdef.ErrLogConflict) {
		t.Errorf("closed with %v, ended with %v", err, told)
	}
	kept, err := pair.disk.Snapshots.List()
	must(t, err)
	if len(kept) != 1 || kept[0].Index != conflictIndex {
		t.Errorf("kept %+v", kept)
	}
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

// A log that ends before a received snapshot goes at once: nobody has compared it with what that stands for. Without the remedy it
// stays, and a leader has it to send.
func TestLogBeforeSnapshotIsDiscarded(t *testing.T) {
	t.Parallel()
	for _, remedies := range []bool{true, false} {
		t.Run(map[bool]string{true: "with the remedy", false: "without"}[remedies], func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.keep(p.disk, 1, 1, entryOf(1, p.config))
			p.keep(p.disk, 1, 2, nil)
			running, ended := p.start(remedies)
			p.send(furtherIndex)
			last, err := p.disk.Logs.LastIndex()
			must(t, err)
			if remedies && last != 0 || ended.Load() != nil {
				t.Errorf("the log ends at %d, the node with %v", last, ended.Load())
			}
			if !remedies && last != 2 {
				t.Fatal("raft gets by without the remedy now: discardTo in cluster/conflict.go may go")
			}
			must(t, running.Shutdown().Error())
		})
	}
}

// What is on the disk when a node starts: it may have crashed between a snapshot and what it was to discard.
func TestDiscard(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name               string
		snapshot           position // none when zero
		logs               []*raft.Log
		firstKept, allKept uint64
	}{
		{"no snapshot", position{}, entries(1, 1, 9), 1, 9},
		{"the same entry", position{5, 1}, entries(1, 1, 9), 1, 9},
		{"another entry", position{5, 2}, entries(1, 1, 9), 0, 0},
		{"a log that ends before", position{12, 2}, entries(1, 1, 9), 0, 0},
		{"a log that ends right before", position{10, 1}, entries(1, 1, 9), 0, 0},
		{"a log that goes on", position{5, 1}, entries(1, 6, 9), 6, 4},
		{"a gap", position{12, 2}, append(entries(1, 1, 9), entries(2, 13, 15)...), 13, 3},
		{"no log", position{5, 1}, nil, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			if c.snapshot.index > 0 {
				p.snapshot(p.disk, c.snapshot.index, c.snapshot.term)
			}
			must(t, p.disk.Logs.StoreLogs(c.logs))
			must(t, discard(p.disk.Logs, p.disk.Snapshots))
			first, err := p.disk.Logs.FirstIndex()
			must(t, err)
			kept := uint64(0)
			for _, entry := range c.logs {
				if p.disk.Logs.GetLog(entry.Index, &raft.Log{}) == nil {
					kept++
				}
			}
			if first != c.firstKept || kept != c.allKept {
				t.Errorf("kept %d entries from %d on, want %d from %d on", kept, first, c.allKept, c.firstKept)
			}
		})
	}
}

// The newest snapshot is the one with which raft would start again.
func TestNewestSnapshot(t *testing.T) {
	t.Parallel()
	s := checkedSnapshots{newest: &atomic.Pointer[position]{}}
	for _, c := range []struct{ made, want position }{
		{position{5, 2}, position{5, 2}}, {position{4, 2}, position{5, 2}}, {position{4, 3}, position{4, 3}}, {position{5, 3}, position{5, 3}},
		{position{6, 2}, position{5, 3}}, {position{6, 3}, position{6, 3}},
	} {
		if s.made(c.made); s.end() != c.want {
			t.Errorf("after %v the newest is %v, want %v", c.made, s.end(), c.want)
		}
	}
}

// pair is a leader and a follower, each with a past of its own.
type pair struct {
	t        *testing.T
	leader   *raft.Raft
	config   raft.Configuration // both are voters
	links    map[raft.ServerID]*raft.InmemTransport
	disk     Disk             // the follower's
	machine  raft.BatchingFSM // the follower's
	received atomic.Int64
	stop     func() // hands no more to the follower
}

// newConflict has a leader with nothing but a snapshot and a follower with a log that conflicts with it.
func newConflict(t *testing.T) *pair {
	p := newPair(t)
	p.keep(p.disk, 1, 1, entryOf(1, p.config))
	for index := uint64(2); index <= conflictIndex+2; index++ {
		p.keep(p.disk, 1, index, nil)
	}
	disk := memoryDisk()
	p.snapshot(disk, conflictIndex, 2)
	p.lead(disk, 2)
	return p
}

func newPair(t *testing.T) *pair {
	p := &pair{
		t: t, links: map[raft.ServerID]*raft.InmemTransport{}, disk: memoryDisk(), machine: mockMachine{&raft.MockFSM{}},
		stop: func() {},
	}
	t.Cleanup(func() { p.stop() })
	p.disk.Snapshots = countedSnapshots{p.disk.Snapshots, &p.received}
	for _, id := range []raft.ServerID{"leader", "follower"} {
		_, p.links[id] = raft.NewInmemTransport(raft.ServerAddress(id))
		p.config.Servers = append(p.config.Servers, raft.Server{ID: id, Address: raft.ServerAddress(id)})
	}
	p.links["leader"].Connect("follower", p.links["follower"])
	p.links["follower"].Connect("leader", p.links["leader"])
	return p
}

func memoryDisk() Disk {
	store := raft.NewInmemStore()
	return Disk{Logs: store, Stable: store, Snapshots: raft.NewInmemSnapshotStore(), Close: func() error { return nil }}
}

// entryOf is the entry of a configuration.
func entryOf(index uint64, configuration raft.Configuration) *raft.Log {
	return &raft.Log{Index: index, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(configuration)}
}

// keep puts an entry onto a disk, one of a command when it is nil.
func (p *pair) keep(disk Disk, term, index uint64, entry *raft.Log) {
	if entry == nil {
		entry = &raft.Log{Index: index, Data: []byte("command")}
	}
	entry.Term = term
	must(p.t, disk.Logs.StoreLog(entry))
	must(p.t, disk.Stable.SetUint64([]byte("CurrentTerm"), term))
}

// snapshot puts one onto a disk.
func (p *pair) snapshot(disk Disk, index, term uint64) {
	sink, err := disk.Snapshots.Create(1, index, term, p.config, 1, p.links["leader"])
	must(p.t, err)
	captured, err := (&raft.MockFSM{}).Snapshot()
	must(p.t, err)
	must(p.t, captured.Persist(sink))
}

// lead starts the leader, whose log is the better one.
func (p *pair) lead(disk Disk, term uint64) {
	must(p.t, disk.Stable.SetUint64([]byte("CurrentTerm"), term))
	var err error
	p.leader, err = raft.NewRaft(p.settings("leader"), &raft.MockFSM{}, disk.Logs, disk.Stable, disk.Snapshots, p.links["leader"])
	must(p.t, err)
	p.t.Cleanup(func() { must(p.t, p.leader.Shutdown().Error()) })
}

func (p *pair) settings(id raft.ServerID) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger = id, newHCLogger(testLogger(string(id)), "raft")
	conf.HeartbeatTimeout, conf.ElectionTimeout = 300*time.Millisecond, 300*time.Millisecond
	conf.LeaderLeaseTimeout, conf.CommitTimeout = 200*time.Millisecond, 10*time.Millisecond
	return conf
}

// start runs the follower on its disk, with our remedies or as raft is, and tells why it was ended. The one before must be shut
// down.
func (p *pair) start(remedies bool) (*raft.Raft, *atomic.Pointer[error]) {
	p.t.Helper()
	p.stop()
	ended := &atomic.Pointer[error]{}
	s := &storage{logs: p.disk.Logs, stable: p.disk.Stable, snapshots: p.disk.Snapshots}
	var link raft.Transport = p.links["follower"]
	machine := p.machine
	comes := newIncoming(link.Consumer())
	if remedies {
		var err error
		s, err = watch(p.disk, diskWatch{limit: patience, fatal: func(err error) { ended.CompareAndSwap(nil, &err) }})
		must(p.t, err)
		machine = inTurn{BatchingFSM: machine, turn: s.turn, armed: &atomic.Bool{}}
		link = diverted{p.links["follower"], comes.to}
	}
	running, err := raft.NewRaft(p.settings("follower"), machine, s.logs, s.stable, s.snapshots, link)
	must(p.t, err)
	if remedies {
		var serving sync.WaitGroup
		serving.Go(func() { comes.serve(&receiver{state: running, snapshot: s.newest, turn: s.turn}) })
		p.stop = func() { // what comes later is for the next one
			comes.close()
			serving.Wait()
		}
	}
	return running, ended
}

// send sends the follower a snapshot in the name of the leader, whose term is as high as can be.
func (p *pair) send(index uint64) {
	disk := memoryDisk()
	p.snapshot(disk, index, 2)
	listed, err := disk.Snapshots.List()
	must(p.t, err)
	meta, content, err := disk.Snapshots.Open(listed[0].ID)
	must(p.t, err)
	answer := &raft.InstallSnapshotResponse{}
	must(p.t, p.links["leader"].InstallSnapshot("follower", "follower", &raft.InstallSnapshotRequest{
		RPCHeader:       raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("leader"), Addr: []byte("leader")},
		SnapshotVersion: raft.SnapshotVersionMax, Term: 1_000_000, LastLogIndex: meta.Index, LastLogTerm: meta.Term, Size: meta.Size,
		Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex,
	}, answer, content))
	if !answer.Success {
		p.t.Errorf("snapshot %d was refused, and would be sent again", index)
	}
}

// mockMachine is raft's mock, in batches.
type mockMachine struct{ *raft.MockFSM }

// ApplyBatch implements raft.BatchingFSM.
func (m mockMachine) ApplyBatch(entries []*raft.Log) []any {
	results := make([]any, len(entries))
	for i, entry := range entries {
		if entry.Type == raft.LogCommand {
			results[i] = m.Apply(entry)
		}
	}
	return results
}

// diverted is a link whose requests go to raft another way.
type diverted struct {
	*raft.InmemTransport
	consumer <-chan raft.RPC
}

// Consumer implements raft.Transport.
func (d diverted) Consumer() <-chan raft.RPC { return d.consumer }

func (p *pair) until(what string, reached func() bool) {
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
