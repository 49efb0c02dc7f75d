package simulation

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Options say what is simulated.
type Options struct {
	Seed     uint64
	Duration time.Duration // of faults and clients, in simulated time
	Voters   int
	Replicas int       // further hosts, nonvoters as long as no voter is missing
	Clients  int       // each calls every three seconds, and more often when something breaks
	Planted  Bug       // what must be found
	Fault    string    // the name of the only fault to happen; empty for all
	Dir      string    // an empty directory for the nodes
	Log      io.Writer // of the nodes; nil for none
}

// Bug is a fault that is planted to see that it is found.
type Bug string

// The bugs.
const (
	NoBug       Bug = ""
	StaleLeader Bug = "a read from a stale leader"
	LostSync    Bug = "a lost fsync"
	ReusedID    Bug = "a reused id"
	Forgetful   Bug = "a skipped dedupe"
	// RacingHeartbeats are handled beside raft's main goroutine, as its network transport does by itself.
	RacingHeartbeats Bug = "racing heartbeats"
)

// fleet is one run.
type fleet struct {
	options  Options
	network  *network
	hosts    []*host
	history  *history
	failures *failures
	trouble  *trouble
	writing  chan struct{} // without capacity: a write begins

	running  context.Context // ends with the schedule
	end      context.CancelFunc
	workers  sync.WaitGroup
	closed   atomic.Bool  // no node starts any more
	trailing uint64       // entries that stay behind a snapshot
	given    atomic.Int64 // addresses given out so far
	fatals   atomic.Int64 // runs of nodes that ended themselves
}

// trouble is when something was last broken. Clients hurry then.
type trouble struct {
	mutex sync.Mutex // guards what follows
	at    time.Time
	next  chan struct{} // closed when something breaks
}

func newTrouble() *trouble { return &trouble{next: make(chan struct{})} }

func (t *trouble) begin() {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.at = time.Now()
	close(t.next)
	t.next = make(chan struct{})
}

// last returns when something was last broken, and what is closed the next time.
func (t *trouble) last() (time.Time, <-chan struct{}) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return t.at, t.next
}

// failures are what must not have happened.
type failures struct {
	mutex sync.Mutex // guards found
	found []string
}

// shown bounds what is kept: one fault shows in many places.
const shown = 20

func (f *failures) add(format string, args ...any) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if len(f.found) < shown {
		f.found = append(f.found, fmt.Sprintf(format, args...))
	}
}

func (f *failures) list() []string {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return append([]string(nil), f.found...)
}

// With few entries behind a snapshot, nodes are sent snapshots often. More than a request of raft holds (64) are sent in several,
// each of which ends before a snapshot that the other node may have.
const (
	fewTrailing  = 24
	manyTrailing = 256
)

func newFleet(o Options) *fleet {
	f := &fleet{
		options: o, network: newNetwork(newDice(o.Seed, 1)), history: newHistory(), failures: &failures{},
		trouble: newTrouble(), writing: make(chan struct{}),
	}
	f.running, f.end = context.WithCancel(context.Background())
	paces := newDice(o.Seed, 2)
	for i := range o.Voters + o.Replicas {
		h := &host{
			fleet: f, name: fmt.Sprintf("n%d", i+1), dir: fmt.Sprintf("%s/n%d", o.Dir, i+1),
			disk: newDisk(newDice(o.Seed, uint64(100+i))), pace: 0.5 + 1.5*paces.float(), busy: make(chan struct{}, 1),
		}
		h.disk.losesWrites = o.Planted == LostSync
		h.settleAt(f.newIP())
		f.hosts = append(f.hosts, h)
	}
	f.trailing = []uint64{fewTrailing, manyTrailing}[paces.below(2)]
	return f
}

func (f *fleet) newIP() string { return fmt.Sprintf("10.0.0.%d", f.given.Add(1)) }

// join is what nodes are told to join: the voters of the first hour, where they are now.
func (f *fleet) join() []string {
	var addresses []string
	for _, h := range f.hosts[:f.options.Voters] {
		addresses = append(addresses, h.told(gossipPort))
	}
	return addresses
}

func (f *fleet) newCatalog() *catalog.Catalog {
	if f.options.Planted == Forgetful {
		return catalog.New(catalog.WithoutOutcomes())
	}
	return catalog.New()
}

// at returns the host that has an address now.
func (f *fleet) at(address string) *host {
	for _, h := range f.hosts {
		if h.told(peerPort) == address {
			return h
		}
	}
	return nil
}

// fatal does what a supervisor does when a node ends itself: it starts it again.
func (f *fleet) fatal(h *host, n *node, cause error) {
	f.logger(h.name).Info("ends itself", "cause", cause)
	f.fatals.Add(1)
	f.workers.Go(func() {
		h.busy <- struct{}{} // a node can fail while it is being opened
		h.halt(n)
		<-h.busy
		f.revive(h)
	})
}

// restartPause is how long a supervisor waits before it starts a node again.
const restartPause = 3 * time.Second

// revive starts a node until it stays.
func (f *fleet) revive(h *host) {
	for {
		err := h.start()
		if err == nil {
			return
		}
		switch errdef.ReasonOf(err) {
		case errdef.StorageFailed:
		case errdef.Removed: // a leave whose outcome nobody learned; the operator does what the error says
			if err := h.wipe(false); err != nil {
				f.failures.add("%s: %v", h.name, err)
			}
		default:
			f.failures.add("%s does not start: %v", h.name, err)
			return
		}
		if pause(context.Background(), restartPause) != nil {
			return
		}
	}
}

// observer sees what a node applies: entries of one index must be the same everywhere, and after all that came before.
func (f *fleet) observer(h *host) func([]catalog.Entry) {
	return func(entries []catalog.Entry) {
		for _, entry := range entries {
			if first, differs := f.history.applied(entry.Index, entry.Hash); differs {
				f.failures.add("%s applies at index %d what is %x there, elsewhere %x", h.name, entry.Index, entry.Hash[:4], first[:4])
			}
		}
	}
}

// leader returns a node that leads, as far as it knows itself.
func (f *fleet) leader() (*host, *node) {
	for _, h := range f.hosts {
		if n := h.running.Load(); n != nil && n.cluster.Status().Leader == n.cluster.Self() {
			return h, n
		}
	}
	return nil, nil
}
