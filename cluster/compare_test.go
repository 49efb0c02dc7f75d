package cluster

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// flipper is a state machine that applies one command of the log as another one, as after a flipped bit.
type flipper struct {
	Machine
	t    testing.TB
	next *atomic.Bool
}

// ApplyBatch implements raft.BatchingFSM.
func (f *flipper) ApplyBatch(logs []*raft.Log) []any {
	for i, log := range logs {
		if log.Type == raft.LogCommand && f.next.CompareAndSwap(true, false) {
			other, err := fsm.Encode(push("flipped"))
			if err != nil {
				f.t.Error(err)
			}
			flipped := *log
			flipped.Data = other
			logs[i] = &flipped
		}
	}
	return f.Machine.ApplyBatch(logs)
}

// flips puts a flipper under a node, whenever it is started, and collects what ends it. The next command is flipped where
// next is set.
func (n *node) flips() (next *atomic.Bool, fatal *atomic.Pointer[error]) {
	next, fatal = &atomic.Bool{}, &atomic.Pointer[error]{}
	n.wrap = func(machine Machine) Machine { return &flipper{machine, n.fleet.t, next} }
	n.config.Fatal = func(err error) { fatal.CompareAndSwap(nil, &err) }
	return next, fatal
}

// A node that applies another command than the others is stopped, and no other one. It does not come back on its disk, and
// does under a new id on an empty one. With the planted bug, nodes that do not tell their hashes, it would go on.
func TestDivergedNodeStops(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		hash func(*Cluster, catalog.LogIndex) (Hash, error)
		ends bool
	}{
		{"honest", nil, true},
		{"planted bug", func(*Cluster, catalog.LogIndex) (Hash, error) {
			return Hash{}, errdef.New(errdef.NotFound, "comparison is switched off")
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			nodes := f.prepare(3, 3)
			var asked atomic.Int64
			if c.hash != nil {
				f.hash = func(of *Cluster, index catalog.LogIndex) (Hash, error) {
					asked.Add(1)
					return c.hash(of, index)
				}
			}
			flips, fatals := make([]*atomic.Bool, 3), make([]*atomic.Pointer[error], 3)
			for i, n := range nodes {
				n.config.Timings.Compare = 50 * time.Millisecond
				flips[i], fatals[i] = n.flips()
			}
			f.start(nodes...)
			nodes[0].write("before")
			flips[2].Store(true)
			nodes[0].write("victim")
			if !c.ends {
				f.eventually("they were asked often", func() error {
					if got := asked.Load(); got < 100 {
						return errdef.New(errdef.NotReady, "%d times", got)
					}
					return nil
				})
				if fatals[2].Load() != nil {
					t.Error("the comparison is not what stops the node")
				}
				return
			}
			f.eventually("the node is stopped", func() error {
				if err := fatals[2].Load(); err == nil || errdef.ReasonOf(*err) != errdef.Diverged {
					return errdef.New(errdef.NotReady, "it is not told to end")
				}
				return nil
			})
			if got := errdef.ReasonOf(nodes[2].cluster.Ready()); got != errdef.Diverged {
				t.Errorf("the node is %q, want %s", got, errdef.Diverged)
			}
			nodes[2].crash()
			if err := nodes[2].open(); errdef.ReasonOf(err) != errdef.Diverged {
				t.Errorf("with the same disk it starts: %v", err)
			}
			nodes[2].wipe()
			f.start(nodes[2])
			nodes[2].hasTags("before", "victim")
			nodes[1].write("after")
			f.sameDigest(nodes...)
			f.waitReady(nodes...)
			for i, n := range nodes[:2] {
				if err := fatals[i].Load(); err != nil {
					t.Errorf("%s was stopped too: %v", n.config.Name, *err)
				}
			}
		})
	}
}

// Of two voters, neither can know who is right: both say so, neither ends.
func TestDisputedHashes(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := f.prepare(2, 2)
	flips, fatals := make([]*atomic.Bool, 2), make([]*atomic.Pointer[error], 2)
	for i, n := range nodes {
		n.config.Timings.Compare = 50 * time.Millisecond
		flips[i], fatals[i] = n.flips()
	}
	f.start(nodes...)
	for _, n := range nodes {
		f.eventually(n.config.Name+" has compared", func() error {
			if got, known := n.cluster.Compared(); !known || got.Equal != 2 || got.Disputed {
				return errdef.New(errdef.NotReady, "%+v", got)
			}
			return n.cluster.Ready()
		})
	}
	flips[0].Store(true)
	nodes[1].write("victim")
	for i, n := range nodes {
		f.eventually(n.config.Name+" says so", func() error {
			if got := errdef.ReasonOf(n.cluster.Ready()); got != errdef.Diverged {
				return errdef.New(errdef.NotReady, "it is %q", got)
			}
			return nil
		})
		if err := fatals[i].Load(); err != nil {
			t.Errorf("%s was stopped: %v", n.config.Name, *err)
		}
	}
}

func TestJudge(t *testing.T) {
	a, b, d := &Hash{1}, &Hash{2}, &Hash{3}
	for _, c := range []struct {
		name   string
		own    *Hash
		voters []*Hash
		want   Comparison
		ends   bool
	}{
		{"all agree", a, []*Hash{a, a, a}, Comparison{Voters: 3, Told: 3, Equal: 3}, false},
		{"nobody else tells", a, []*Hash{a, nil, nil}, Comparison{Voters: 3, Told: 1, Equal: 1}, false},
		{"another one differs", a, []*Hash{a, a, b}, Comparison{Voters: 3, Told: 3, Equal: 2}, false},
		{"this one differs", a, []*Hash{a, b, b}, Comparison{Voters: 3, Told: 3, Equal: 1}, true},
		{"two of three tell, and differ", a, []*Hash{a, b, nil}, Comparison{Voters: 3, Told: 2, Equal: 1, Disputed: true}, false},
		{"three of five agree", a, []*Hash{a, nil, b, b, b}, Comparison{Voters: 5, Told: 4, Equal: 1}, true},
		{"two of five do", a, []*Hash{a, nil, b, b, nil}, Comparison{Voters: 5, Told: 3, Equal: 1, Disputed: true}, false},
		{"all differ", a, []*Hash{a, b, d}, Comparison{Voters: 3, Told: 3, Equal: 1, Disputed: true}, false},
		{"two against two", a, []*Hash{a, a, b, b}, Comparison{Voters: 4, Told: 4, Equal: 2, Disputed: true}, false},
		{"a nonvoter differs", a, []*Hash{b, b, nil}, Comparison{Voters: 3, Told: 2}, true},
		{"a nonvoter differs from one", a, []*Hash{b, nil, nil}, Comparison{Voters: 3, Told: 1, Disputed: true}, false},
		{"a nonvoter agrees", a, []*Hash{a, a, nil}, Comparison{Voters: 3, Told: 2, Equal: 2}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, ends := judge(*c.own, c.voters); got != c.want || ends != c.ends {
				t.Errorf("got %+v, ends %v, want %+v, %v", got, ends, c.want, c.ends)
			}
		})
	}
}
