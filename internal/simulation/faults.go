package simulation

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/ocistern/ocistern/cluster"
)

// fault breaks something, waits, and mends it. It returns at once when what it would break is broken already.
type fault struct {
	name   string
	weight int
	run    func(*schedule)
}

// faults is the table of what can happen. The weights were chosen so that an hour has some of each.
var faults = []fault{
	{"partition", 4, (*schedule).partition},
	{"isolated leader", 4, (*schedule).isolateLeader},
	{"one-way cut", 3, (*schedule).cutOneWay},
	{"bridge", 2, (*schedule).bridge},
	{"crash", 4, (*schedule).crash},
	{"crash of the leader", 3, (*schedule).crashLeader},
	{"power loss everywhere", 1, (*schedule).crashAll},
	{"restart in good order", 2, (*schedule).restart},
	{"slow disk", 3, (*schedule).slowDisk},
	{"failing disk", 1, (*schedule).failDisk},
	{"lost disk", 2, (*schedule).loseDisk},
	{"lost disk beside a laggard", 2, (*schedule).loseDiskBesideLaggard},
	{"new address", 1, (*schedule).move},
	{"transfer", 4, (*schedule).transfer},
	{"leave", 1, (*schedule).leave},
}

// both cuts or mends two hosts from each other.
func both(a, b *host) []link {
	x, y := *a.ip.Load(), *b.ip.Load()
	return []link{{x, y}, {y, x}}
}

// cutFor cuts links for a while.
func (s *schedule) cutFor(links ...link) {
	s.fleet.network.setCut(true, links...)
	s.wait(5*time.Second, 60*time.Second)
	s.fleet.network.setCut(false, links...)
}

// partition splits the hosts in two.
func (s *schedule) partition() {
	var links []link
	side := make([]bool, len(s.fleet.hosts))
	for i := range side {
		side[i] = s.dice.float() < 0.5
	}
	for i, a := range s.fleet.hosts {
		for j, b := range s.fleet.hosts[:i] {
			if side[i] != side[j] {
				links = append(links, both(a, b)...)
			}
		}
	}
	s.cutFor(links...)
}

// isolateLeader cuts the leader off, often the one with the slowest clock: it believes in itself for the longest time.
func (s *schedule) isolateLeader() {
	leader, n := s.fleet.leader()
	if leader == nil {
		return
	}
	if s.dice.float() < 0.7 {
		slowest := slices.MaxFunc(s.fleet.hosts, func(a, b *host) int {
			return cmp.Or(compareBool(a.votesAt(n), b.votesAt(n)), cmp.Compare(a.pace, b.pace))
		})
		if to := slowest.running.Load(); to != nil && slowest != leader {
			s.operate(cluster.Operation{Kind: cluster.OperationTransfer, Node: string(to.cluster.Self())})
			s.wait(time.Second, 5*time.Second)
			s.fleet.trouble.begin()
		}
		if leader, _ = s.fleet.leader(); leader == nil {
			return
		}
	}
	s.cutFor(s.from(leader)...)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

func (s *schedule) cutOneWay() {
	a, b := s.two()
	s.cutFor(both(a, b)[0])
}

// bridge leaves each of two hosts only the others.
func (s *schedule) bridge() {
	a, b := s.two()
	s.cutFor(both(a, b)...)
}

func (s *schedule) crash() {
	s.withHost(s.any(), func(h *host) {
		h.crash()
		s.wait(time.Second, 60*time.Second)
		s.fleet.revive(h)
	})
}

// crashLeader crashes the leader in the middle of a write: it may be committed, and nobody was told.
func (s *schedule) crashLeader() {
	select {
	case <-s.fleet.writing:
	case <-s.fleet.running.Done():
		return
	}
	leader, _ := s.fleet.leader()
	s.withHost(leader, func(h *host) {
		s.wait(0, 25*time.Millisecond)
		h.crash()
		s.wait(time.Second, 30*time.Second)
		s.fleet.revive(h)
	})
}

// crashAll takes the power from all hosts at one moment; they come back one after the other.
func (s *schedule) crashAll() {
	for _, h := range s.fleet.hosts {
		s.faults.Go(func() {
			s.withHost(h, func(h *host) {
				h.crash()
				s.wait(time.Second, 20*time.Second)
				s.fleet.revive(h)
			})
		})
	}
}

// restart is what a rolling update does. A leader hands over.
func (s *schedule) restart() {
	chosen := s.any()
	if leader, _ := s.fleet.leader(); leader != nil && s.dice.float() < 0.5 {
		chosen = leader
	}
	s.withHost(chosen, func(h *host) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		h.stop(ctx)
		s.wait(time.Second, 20*time.Second)
		s.fleet.revive(h)
	})
}

func (s *schedule) slowDisk() {
	s.withDisk(s.any(), func(h *host) {
		h.disk.setFault(s.dice.between(50*time.Millisecond, 4*time.Second), false)
		s.wait(10*time.Second, 60*time.Second)
		h.disk.setFault(0, false)
	})
}

// failDisk makes a node end itself, and again, until its disk works.
func (s *schedule) failDisk() {
	s.withDisk(s.any(), func(h *host) {
		h.disk.setFault(0, true)
		s.wait(5*time.Second, 30*time.Second)
		h.disk.setFault(0, false)
	})
}

// move gives a host another address, as a pod gets one.
func (s *schedule) move() {
	s.withHost(s.any(), func(h *host) {
		h.crash()
		h.move(s.fleet.newIP())
		s.wait(time.Second, 20*time.Second)
		s.fleet.revive(h)
	})
}

// transfer hands the leadership to somebody, through anybody.
func (s *schedule) transfer() {
	to := s.any().running.Load()
	if to != nil {
		s.operate(cluster.Operation{Kind: cluster.OperationTransfer, Node: string(to.cluster.Self())})
	}
}

// orderTime is the deadline of an operator's order.
const orderTime = 30 * time.Second

// operate does what an operator does, and tells whether it was done.
func (s *schedule) operate(operation cluster.Operation) bool {
	n := s.any().running.Load()
	if n == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(n.endpoint.alive, orderTime)
	defer cancel()
	_, err := n.cluster.Operate(ctx, operation)
	s.fleet.logger("schedule").Info("operation", "operation", operation, "error", err)
	return err == nil
}
