package cluster

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// staleRead writes a tag through one node and reads it through another at the index that readIndex gives. It reports
// whether the read missed the write.
func staleRead(t *testing.T, tag string, writer, reader *node, readIndex func(context.Context) (catalog.LogIndex, error)) bool {
	t.Helper()
	writer.write(tag)
	index, err := readIndex(t.Context())
	must(t, err)
	snapshot, err := reader.catalog.Wait(t.Context(), index)
	must(t, err)
	_, found := snapshot.Tag("default", "team/app", reference.Tag(tag))
	return !found
}

// A linearizable read sees every acknowledged write, through any pair of nodes.
func TestReadIndexSeesAcknowledgedWrites(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	for i := range 60 {
		writer, reader := nodes[i%3], nodes[i/3%3]
		if tag := fmt.Sprintf("tag-%d", i); staleRead(t, tag, writer, reader, reader.cluster.ReadIndex) {
			t.Fatalf("%s, written through %s, is not read through %s", tag, writer.config.Name, reader.config.Name)
		}
	}
}

// The check above is checked: with the bug of reading at whatever a follower has applied, it finds a stale read.
func TestReadsWithoutReadIndexAreCaught(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	leader := f.leader(nodes...)
	follower := without(nodes, leader)[0]
	applied := func(context.Context) (catalog.LogIndex, error) { return follower.catalog.Snapshot().Index(), nil }
	for i := range 1000 {
		if staleRead(t, fmt.Sprintf("tag-%d", i), leader, follower, applied) {
			return
		}
	}
	t.Error("a read without read index never missed a write")
}

// lostWithLeader writes through a follower, loses the leader for good, and reports whether a linearizable read through any
// of the others misses the acknowledged write. apply, where it is not nil, takes the place of forwarding to the leader.
func lostWithLeader(t *testing.T, apply func(context.Context, *Cluster, fsm.Request) (catalog.LogIndex, error)) bool {
	t.Helper()
	f := newFleet(t)
	f.apply = apply
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	leader := f.leader(nodes...)
	rest := without(nodes, leader)
	rest[0].write("before")
	leader.crash()
	lost := false
	for _, n := range rest {
		var index catalog.LogIndex
		f.eventually("a linearizable read through "+n.config.Name, func() (err error) {
			index, err = n.cluster.ReadIndex(t.Context())
			return err
		})
		snapshot, err := n.catalog.Wait(t.Context(), index)
		must(t, err)
		if _, found := snapshot.Tag("default", "team/app", "before"); !found {
			lost = true
		}
	}
	return lost
}

// G2: an acknowledged write survives the leader, and its successor answers for it at once (a leader does not know how far
// its predecessor has committed, before it has committed itself).
func TestAcknowledgedWritesSurviveTheLeader(t *testing.T) {
	t.Parallel()
	if lostWithLeader(t, nil) {
		t.Error("a write was acknowledged and is lost")
	}
}

// The check above is checked: it finds a leader that acknowledges what it has not committed.
func TestEarlyAcknowledgementIsCaught(t *testing.T) {
	t.Parallel()
	early := func(context.Context, *Cluster, fsm.Request) (catalog.LogIndex, error) { return 1, nil }
	if !lostWithLeader(t, early) {
		t.Error("a write that was never submitted seems to have survived")
	}
}

// A leader that cannot prove that it still leads gives no index, whatever it believes itself.
func TestReadIndexNeedsAMajority(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	var mutex sync.Mutex // guards tell
	var tell func(NodeState) (NodeState, error)
	f.state = func(c *Cluster) (NodeState, error) {
		mutex.Lock()
		defer mutex.Unlock()
		if tell == nil {
			return c.State(), nil
		}
		return tell(c.State())
	}
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	leader := f.leader(nodes...)
	for name, test := range map[string]struct {
		tell func(NodeState) (NodeState, error)
		want errdef.Reason
	}{
		"all confirm":         {func(s NodeState) (NodeState, error) { return s, nil }, ""},
		"a later term":        {func(s NodeState) (NodeState, error) { s.Term++; return s, nil }, errdef.NotLeader},
		"another id":          {func(s NodeState) (NodeState, error) { s.ID = "wiped"; return s, nil }, errdef.NotLeader},
		"nobody can be asked": {func(NodeState) (NodeState, error) { return NodeState{}, errdef.New(errdef.Unavailable, "cut") }, errdef.NotLeader},
	} {
		mutex.Lock()
		tell = test.tell
		mutex.Unlock()
		if _, err := leader.cluster.ReadIndexLocal(t.Context(), Witness{}); errdef.ReasonOf(err) != test.want {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
	mutex.Lock()
	tell = func(s NodeState) (NodeState, error) { s.Term++; return s, nil }
	mutex.Unlock()
	if _, err := leader.cluster.ReadIndex(t.Context()); errdef.ReasonOf(err) == "" {
		t.Error("ReadIndex gave an index that no voter confirmed")
	}
	follower := without(nodes, leader)[0]
	if _, err := follower.cluster.ReadIndexLocal(t.Context(), follower.cluster.witness()); errdef.ReasonOf(err) != errdef.NotLeader {
		t.Errorf("a follower answered for the leader: %v", err)
	}
}

// Without a quorum a linearizable read fails at once with NO_QUORUM, while the catalog can still be read.
func TestReadIndexWithoutQuorum(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	nodes[0].write("known")
	nodes[0].hasTags("known")
	nodes[1].crash()
	nodes[2].crash()
	if _, err := nodes[0].cluster.ReadIndex(t.Context()); errdef.ReasonOf(err) != errdef.NoQuorum {
		t.Errorf("got %v, want %s", err, errdef.NoQuorum)
	}
	nodes[0].hasTags("known")
}

// Voters that say nothing, as behind a cut network, cost a linearizable read Timings.Patience and no more.
func TestReadIndexDoesNotWaitForSilentVoters(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	var silent atomic.Bool
	f.readIndex = func(ctx context.Context, c *Cluster, _ Witness) (catalog.LogIndex, error) {
		return c.ReadIndexLocal(ctx, Witness{}) // as from an older build
	}
	end := make(chan struct{})
	f.state = func(c *Cluster) (NodeState, error) {
		if silent.Load() {
			<-end
		}
		return c.State(), nil
	}
	nodes := f.prepare(3, 3)
	for _, n := range nodes {
		n.config.Timings.Patience, n.config.Timings.Call = time.Second, patience
	}
	t.Cleanup(func() { close(end) })
	f.start(nodes...)
	leader := f.leader(nodes...)
	silent.Store(true)
	started := time.Now()
	for _, n := range nodes {
		if _, err := n.cluster.ReadIndex(t.Context()); errdef.ReasonOf(err) != errdef.NoQuorum {
			t.Errorf("through %s: got %v, want %s", n.config.Name, err, errdef.NoQuorum)
		}
	}
	if took := time.Since(started); took > patience/2 {
		t.Errorf("three reads took %s, led by %s", took, leader.config.Name)
	}
}

// However many read through a follower at a time, the leader is asked once for all who wait.
func TestFollowersReadersShareCallsToTheLeader(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	var asked atomic.Int64
	begin := make(chan struct{})
	f.readIndex = func(ctx context.Context, c *Cluster, witness Witness) (catalog.LogIndex, error) {
		asked.Add(1)
		<-begin
		return c.ReadIndexLocal(ctx, witness)
	}
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	follower := without(nodes, f.leader(nodes...))[0]
	const readers = 100
	var joined sync.WaitGroup
	failures := make(chan error, readers)
	for range readers {
		joined.Add(1)
		go func() {
			joined.Done()
			_, err := follower.cluster.ReadIndex(t.Context())
			failures <- err
		}()
	}
	joined.Wait()
	f.eventually("the leader is asked", func() error {
		if asked.Load() == 0 {
			return errdef.New(errdef.NotReady, "nobody has asked")
		}
		return nil
	})
	close(begin)
	for range readers {
		must(t, <-failures)
	}
	if calls := asked.Load(); calls > readers/4 {
		t.Errorf("the leader was asked %d times for %d readers", calls, readers)
	}
}

// A follower whose leader falls silent reads again as soon as there is another one, though the old one never answers.
func TestReadIndexLeavesALeaderThatFellSilent(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	var silent atomic.Pointer[Cluster]
	f.readIndex = func(ctx context.Context, c *Cluster, witness Witness) (catalog.LogIndex, error) {
		if c == silent.Load() {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		return c.ReadIndexLocal(ctx, witness)
	}
	nodes := f.prepare(3, 3)
	for _, n := range nodes {
		n.config.Timings.Patience, n.config.Timings.Call = patience, patience // longer than an election by far
	}
	f.start(nodes...)
	leader := f.leader(nodes...)
	silent.Store(leader.cluster)
	reader := without(nodes, leader)[0]
	done := make(chan error, 1)
	go func() {
		_, err := reader.cluster.ReadIndex(t.Context())
		done <- err
	}()
	started := time.Now()
	leader.crash()
	must(t, <-done)
	if took := time.Since(started); took > patience/2 {
		t.Errorf("the read took %s", took)
	}
}

// Readers who come while a round is under way share the next one, which begins after they came.
func TestRoundsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r, begin, ran := newRounds(), make(chan struct{}), 0
		go r.serve(ctx, func() (catalog.LogIndex, error) {
			ran++
			<-begin
			return catalog.LogIndex(ran), nil
		})
		first := r.join()
		synctest.Wait() // the first round is under way
		second := r.join()
		for range 100 {
			if r.join() != second {
				t.Fatal("two readers who came in the same round do not share the next one")
			}
		}
		if first == second {
			t.Fatal("a reader joined a round that had begun")
		}
		begin <- struct{}{}
		<-first.done
		begin <- struct{}{}
		<-second.done
		if first.index != 1 || second.index != 2 || ran != 2 {
			t.Errorf("indices %d and %d in %d rounds", first.index, second.index, ran)
		}
		cancel()
	})
}
