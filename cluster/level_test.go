package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// waitLevel waits until every node has applied a feature level, and has it on its disk.
func (f *fleet) waitLevel(level catalog.FeatureLevel, nodes ...*node) {
	f.t.Helper()
	for _, n := range nodes {
		f.eventually(n.config.Name+" is at the feature level", func() error {
			if got := n.catalog.Snapshot().FeatureLevel(); got != level {
				return errdef.New(errdef.NotReady, "it is at %d, want %d", got, level)
			}
			return nil
		})
		if got := n.cluster.identity.current().FeatureLevel; max(got, catalog.LevelFirst) != level {
			f.t.Errorf("%s has level %d in node.json", n.config.Name, got)
		}
	}
}

// waitHeldBack waits until the leader says what holds the level back.
func (f *fleet) waitHeldBack(leader *node, by string) {
	f.t.Helper()
	f.eventually("the level is held back by "+by, func() error {
		if told := leader.cluster.heldBack.Load(); told == nil || !strings.Contains(*told, by) {
			return errdef.New(errdef.NotReady, "held back by %v", told)
		}
		return nil
	})
}

// The level rises as soon as every member offers it, and no sooner: a nonvoter that is capped holds it back, and so does
// one that is away.
func TestLevelRisesWithTheLastMember(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	voters := f.prepare(2, 2)
	for _, n := range voters { // until the nonvoter is there
		n.config.FeatureLevel = catalog.LevelFirst
	}
	f.start(voters...)
	capped := f.add(2, freeAddress(), voters[0].config.Join...)
	capped.config.FeatureLevel = catalog.LevelFirst
	capped.start()
	voters[0].waitRole(capped.cluster.Self(), RoleNonvoter)
	for _, n := range voters {
		n.crash()
		n.config.FeatureLevel = 0
	}
	f.start(voters...)
	nodes := append(voters, capped)
	f.waitHeldBack(f.leader(voters...), string(capped.cluster.Self())+" offers level 1 only")
	voters[0].write("at-level-1")
	f.waitLevel(catalog.LevelFirst, nodes...)
	capped.crash()
	f.waitHeldBack(f.leader(voters...), "is not alive")
	capped.config.FeatureLevel = 0
	capped.start()
	f.waitLevel(catalog.LevelRequests, nodes...)
	voters[1].write("at-level-2")
	for _, n := range nodes {
		n.hasTags("at-level-1", "at-level-2")
	}

	// A cap does not lower what was reached, and a build that is too old does not start.
	capped.crash()
	capped.config.FeatureLevel = catalog.LevelFirst
	capped.start()
	f.waitReady(capped)
	if got := capped.cluster.State().FeatureLevel; got != catalog.LevelRequests {
		t.Errorf("a node at level 2 offers %d", got)
	}
	capped.crash()
	capped.rewrite(func(r *record) { r.FeatureLevel = fsm.MaxLevel + 1 })
	err := capped.open()
	if errdef.ReasonOf(err) != errdef.VersionTooOld {
		t.Errorf("got %v, want %s", err, errdef.VersionTooOld)
	}
	capped.detach()
}

// rewrite changes node.json of a node that does not run.
func (n *node) rewrite(change func(*record)) {
	n.fleet.t.Helper()
	path := filepath.Join(n.config.DataDir, "node.json")
	r, err := readRecord(path)
	must(n.fleet.t, err)
	change(&r)
	encoded, err := json.Marshal(r)
	must(n.fleet.t, err)
	must(n.fleet.t, os.WriteFile(path, encoded, 0o600))
}

// A node that would not understand the entries of a cluster is not let in.
func TestTooOldForTheCluster(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	var old atomic.Pointer[Cluster] // the one that tells nothing of levels
	f.state = func(c *Cluster) (NodeState, error) {
		state := c.State()
		if old.Load() == c {
			state.FeatureLevel = 0
		}
		return state, nil
	}
	first := f.prepare(1, 1)[0]
	f.start(first)
	f.waitLevel(catalog.LevelRequests, first)
	late := f.add(1, freeAddress(), first.config.Listen.Gossip)
	late.start()
	old.Store(late.cluster)
	f.waitHeldBack(first, "supports feature level 1")
	if role, ok := first.roles()[late.cluster.Self()]; ok {
		t.Errorf("the old node is a %s", role)
	}
	old.Store(nil)
	first.waitRole(late.cluster.Self(), RoleNonvoter)
	f.waitLevel(catalog.LevelRequests, late)
}

// A compare-and-set whose first answer is lost is submitted again by itself and takes effect once, through whatever node.
// With the memory of requests switched off it would be refused by its own first attempt; below level 2 it is not
// submitted again.
func TestLostAnswerIsAskedForAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		level   catalog.FeatureLevel
		options []catalog.Option
		want    errdef.Reason
	}{
		{"level 2", catalog.LevelRequests, nil, ""},
		{"planted", catalog.LevelRequests, []catalog.Option{catalog.WithoutOutcomes()}, errdef.TagConflict},
		{"level 1", catalog.LevelFirst, nil, errdef.OutcomeUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			f.options = c.options
			var lost atomic.Bool
			f.apply = func(ctx context.Context, c *Cluster, request fsm.Request) (catalog.LogIndex, error) {
				index, err := c.ApplyLocal(ctx, request)
				if err == nil && lost.CompareAndSwap(true, false) {
					return 0, errdef.New(errdef.OutcomeUnknown, "the answer was lost")
				}
				return index, err
			}
			nodes := f.prepare(3, 3)
			nodes[0].config.FeatureLevel = c.level
			f.start(nodes...)
			f.waitLevel(c.level, nodes...)
			follower := without(nodes, f.leader(nodes...))[0]
			lost.Store(true)
			once := push("once")
			once.Tags[0].ExpectAbsent = true
			index, err := follower.cluster.Apply(t.Context(), once)
			if errdef.ReasonOf(err) != c.want {
				t.Fatalf("got %d, %v, want %q", index, err, c.want)
			}
			for _, n := range nodes {
				n.hasTags("once")
			}
			if tag, _ := nodes[0].catalog.Snapshot().Tag("default", "team/app", "once"); err == nil && tag.Revision != index {
				t.Errorf("written at %d, told %d", tag.Revision, index)
			}
		})
	}
}

// Callers that submit a request again get the first answer through any node, and an honest one when it is too late.
func TestApplyOnce(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	f.waitLevel(catalog.LevelRequests, nodes...)
	request := nodes[0].cluster.NewRequest()
	once := push("once")
	once.Tags[0].ExpectAbsent = true
	first, err := nodes[0].cluster.ApplyOnce(t.Context(), request, once)
	must(t, err)
	nodes[1].write("between")
	for _, n := range nodes {
		if index, err := n.cluster.ApplyOnce(t.Context(), request, once); err != nil || index != first {
			t.Errorf("again through %s: %d, %v, want %d", n.config.Name, index, err, first)
		}
	}
	if _, err := nodes[0].cluster.ApplyOnce(t.Context(), catalog.Request{}, once); errdef.ReasonOf(err) != errdef.CommandInvalid {
		t.Errorf("without an id: %v", err)
	}
	f.sameDigest(nodes...)

	// A restore undoes what became of requests, and must not do it again. The level stays.
	var saved bytes.Buffer
	leader := f.leader(nodes...)
	must(t, leader.cluster.SaveSnapshot(t.Context(), &saved, false))
	done, err := leader.cluster.RestoreLocal(t.Context(), &saved, false)
	must(t, err)
	_, err = leader.catalog.Wait(t.Context(), done.Index)
	must(t, err)
	if _, err := nodes[0].cluster.ApplyOnce(t.Context(), request, once); errdef.ReasonOf(err) != errdef.RequestExpired {
		t.Errorf("a request from before the restore: %v", err)
	}
	f.waitLevel(catalog.LevelRequests, nodes...)
	f.sameDigest(nodes...)
}

// A node that forwards a named request does not wait for a leader that has fallen silent: when there is another one, it is
// asked.
func TestSilentLeaderIsLeft(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	var silent atomic.Bool
	taken := make(chan *Cluster)
	f.apply = func(ctx context.Context, c *Cluster, request fsm.Request) (catalog.LogIndex, error) {
		if silent.CompareAndSwap(true, false) {
			taken <- c
			<-ctx.Done()
			return 0, ctx.Err()
		}
		return c.ApplyLocal(ctx, request)
	}
	nodes := f.prepare(3, 3)
	f.start(nodes...)
	nonvoter := f.add(3, freeAddress(), nodes[0].config.Join...) // it forwards, whoever leads
	f.start(nonvoter)
	f.waitLevel(catalog.LevelRequests, append(nodes, nonvoter)...)
	silent.Store(true)
	written := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() {
		_, err := nonvoter.cluster.Apply(ctx, push("kept"))
		written <- err
	}()
	asked := <-taken
	for _, n := range nodes {
		if n.cluster == asked {
			n.crash()
		}
	}
	// Its patience may end before a new leader is found; what counts is that it did not wait for its caller's.
	if err := <-written; ctx.Err() != nil || err != nil && errdef.ReasonOf(err) != errdef.OutcomeUnknown {
		t.Errorf("it waited for a leader that is gone: %v", err)
	}
}

// A request that the leader's memory does not reach is drawn anew, once, from the leader's index; never when an earlier attempt
// may have been taken.
func TestExpiredRequestIsDrawnAnew(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	planted, seen := make(chan errdef.Reason, 2), make(chan catalog.Request, 100)
	f.apply = func(ctx context.Context, c *Cluster, request fsm.Request) (catalog.LogIndex, error) {
		seen <- request.Request
		select {
		case reason := <-planted:
			return 0, errdef.New(reason, "planted")
		default:
			return c.ApplyLocal(ctx, request)
		}
	}
	nodes := f.prepare(2, 1)
	leader, follower := nodes[0], nodes[1] // a nonvoter
	leader.config.Join, follower.config.Join = nil, []string{leader.config.Listen.Gossip}
	f.start(leader)
	f.start(follower)
	f.waitLevel(catalog.LevelRequests, nodes...)
	reached := leader.write("before")
	planted <- errdef.RequestExpired
	index, err := follower.cluster.Apply(t.Context(), push("drawn-anew"))
	must(t, err)
	first, second := <-seen, <-seen
	if first.ID == second.ID || second.Since < reached || index <= reached {
		t.Errorf("%+v, then %+v; written at %d, index was %d", first, second, index, reached)
	}
	planted <- errdef.OutcomeUnknown
	planted <- errdef.RequestExpired
	_, err = follower.cluster.Apply(t.Context(), push("unknown"))
	if first, second := <-seen, <-seen; errdef.ReasonOf(err) != errdef.OutcomeUnknown || first != second {
		t.Errorf("%+v, then %+v: %v", first, second, err)
	}
}
