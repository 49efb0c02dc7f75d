package simulation

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// settling is how long, in simulated time, a cluster may take to be whole once all is mended.
const settling = 20 * time.Minute

// settle mends everything, starts hosts that do not run, and waits until they hold the same catalog.
func (f *fleet) settle(hosts []*host) {
	f.network.mend()
	var starting sync.WaitGroup
	for _, h := range hosts {
		h.disk.setFault(0, false)
		starting.Go(func() { f.revive(h) })
	}
	starting.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), settling)
	defer cancel()
	for {
		for _, h := range hosts {
			f.rejoinRemoved(h)
		}
		err := f.agreement(ctx, hosts)
		if err == nil {
			return
		}
		if pause(ctx, 5*time.Second) != nil {
			f.failures.add("the nodes do not come to agree: %v", err)
			for _, h := range hosts {
				f.failures.add("%s at the end: %s", h.name, h.state())
			}
			return
		}
	}
}

// state is what a host's node says of itself and of the others.
func (h *host) state() string {
	n := h.running.Load()
	if n == nil {
		return "does not run"
	}
	s := n.cluster.Status()
	var members []string
	for _, m := range n.cluster.Members() {
		members = append(members, fmt.Sprintf("%s is %s and %s", m.ID, m.Role, m.State))
	}
	return fmt.Sprintf("%s: ready: %v; term %d, leader %q, commit index %d, last index %d; %s",
		n.cluster.Self(), n.cluster.Ready(), s.Term, s.Leader, s.CommitIndex, s.LastIndex, strings.Join(members, ", "))
}

// rejoinRemoved does for a node that left, and was not told so, what its error says.
func (f *fleet) rejoinRemoved(h *host) {
	n := h.running.Load()
	if n == nil || errdef.ReasonOf(n.cluster.Ready()) != errdef.Removed {
		return
	}
	if err := h.wipe(false); err != nil {
		f.failures.add("%s: %v", h.name, err)
	}
	f.revive(h)
}

// agreement returns nil when all nodes are ready and hold the same catalog, reached by the same commands.
func (f *fleet) agreement(ctx context.Context, hosts []*host) error {
	var first *catalog.Snapshot
	for _, h := range hosts {
		n := h.running.Load()
		if n == nil {
			return errdef.New(errdef.NotReady, "%s does not run", h.name)
		}
		if err := n.cluster.Ready(); err != nil {
			return fmt.Errorf("%s: %w", h.name, err)
		}
		index, err := n.cluster.ReadIndex(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", h.name, err)
		}
		snapshot, err := n.catalog.Wait(ctx, index)
		if err != nil {
			return fmt.Errorf("%s: %w", h.name, err)
		}
		if first == nil {
			first = snapshot
			continue
		}
		if err := equal(first, snapshot); err != nil {
			return fmt.Errorf("%s: %w", h.name, err)
		}
	}
	return nil
}

func equal(a, b *catalog.Snapshot) error {
	if a.Index() != b.Index() || a.CommandHash() != b.CommandHash() {
		return errdef.New(errdef.NotReady, "index %d, hash %x; elsewhere %d, %x",
			b.Index(), b.CommandHash(), a.Index(), a.CommandHash())
	}
	one, err := a.Digest()
	if err != nil {
		return err
	}
	if other, err := b.Digest(); err != nil || one != other {
		return errdef.New(errdef.NotReady, "digest %s, elsewhere %s: %v", other, one, err)
	}
	return nil
}

// readAll reads every tag once more through every node: what was acknowledged must be there.
func (f *fleet) readAll() {
	tags := map[string]bool{}
	for _, operation := range f.history.operations {
		tags[operation.Input.(input).tag] = true
	}
	c := f.newClient(f.options.Clients)
	for tag := range tags {
		for _, h := range f.hosts {
			if n := h.running.Load(); n != nil {
				ctx, cancel := context.WithTimeout(n.endpoint.alive, time.Minute)
				if !c.readLinearizable(ctx, n, tag) {
					f.failures.add("%s cannot be read from %s at the end", tag, h.name)
				}
				cancel()
			}
		}
	}
}

// restoreAll takes a snapshot of every node and restores it elsewhere.
func (f *fleet) restoreAll() {
	for _, h := range f.hosts {
		if n := h.running.Load(); n != nil {
			if err := restores(n.catalog); err != nil {
				f.failures.add("a snapshot of %s: %v", h.name, err)
			}
		}
	}
}

func restores(from *catalog.Catalog) error {
	captured, err := fsm.New(from, fsm.Options{}).Snapshot()
	if err != nil {
		return err
	}
	written := &buffer{}
	if err := captured.Persist(written); err != nil {
		return err
	}
	restored := catalog.New()
	if err := fsm.New(restored, fsm.Options{}).Restore(io.NopCloser(&written.Buffer)); err != nil {
		return err
	}
	return equal(from.Snapshot(), restored.Snapshot())
}

// buffer is a raft.SnapshotSink in memory.
type buffer struct{ bytes.Buffer }

func (*buffer) ID() string    { return "simulation" }
func (*buffer) Cancel() error { return nil }
func (*buffer) Close() error  { return nil }

// verdict checks what the clients saw, for at most the time given. It returns the picture's data when it was wrong.
func (h *history) verdict(limit time.Duration) (porcupine.CheckResult, porcupine.LinearizationInfo) {
	return porcupine.CheckOperationsVerbose(model, h.operations, limit)
}
