package simulation

import (
	"context"
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

func (s *schedule) isolateLeader() {
	leader, _ := s.fleet.leader()
	if leader == nil {
		return
	}
	s.cutFor(s.from(leader)...)
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

func (s *schedule) crashLeader() {
	leader, _ := s.fleet.leader()
	s.withHost(leader, func(h *host) {
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

// loseDisk empties the disk of a host for good.
func (s *schedule) loseDisk() {
	s.losing(s.any(), func(h *host) {
		h.crash()
		s.wipe(h)
		s.wait(time.Second, 10*time.Second)
		s.fleet.revive(h)
	})
}

// loseDiskBesideLaggard leaves a leader and one more voter the only ones to have the newest entries, takes the disk of that one
// and cuts the leader off. What is left are two voters who know nothing of them: they must not make a leader.
func (s *schedule) loseDiskBesideLaggard() {
	leader, n := s.fleet.leader()
	if leader == nil {
		return
	}
	var others []*host
	for _, h := range s.fleet.hosts {
		if h != leader && h.votesAt(n) {
			others = append(others, h)
		}
	}
	if len(others) < 2 {
		return
	}
	laggard := others[0]
	s.losing(others[1], func(h *host) {
		behind, ahead := s.from(laggard), s.from(leader)
		s.fleet.network.setCut(true, behind...)
		s.wait(10*time.Second, 30*time.Second)
		h.crash()
		s.wipe(h)
		s.fleet.network.setCut(true, ahead...)
		s.fleet.network.setCut(false, both(laggard, h)...)
		s.fleet.revive(h)
		s.wait(20*time.Second, 40*time.Second)
		s.fleet.network.setCut(false, append(behind, ahead...)...)
	})
}

// losing runs a fault that takes the disk of a host. The next one waits until the cluster is whole again: what survives is the
// loss of any minority, not of one voter after the other faster than they are replaced.
func (s *schedule) losing(h *host, lose func(*host)) {
	if !s.whole.CompareAndSwap(true, false) {
		return
	}
	s.withHost(h, func(h *host) {
		lost := h.running.Load()
		if lost == nil {
			return
		}
		lose(h)
		if s.fleet.options.Planted != ReusedID { // a lost id that is still there is never gone
			s.awaitWhole(lost.cluster)
		}
	})
	s.whole.Store(true)
}

func (s *schedule) wipe(h *host) {
	if err := h.wipe(s.fleet.options.Planted == ReusedID); err != nil {
		s.fleet.failures.add("%s: %v", h.name, err)
	}
}

// votesAt tells whether a host is a voter, as another node knows.
func (h *host) votesAt(n *node) bool {
	own := h.running.Load()
	if own == nil {
		return false
	}
	m, ok := n.cluster.Member(own.cluster.Self())
	return ok && m.Role == cluster.RoleVoter
}

// from returns all links of a host.
func (s *schedule) from(h *host) []link {
	var links []link
	for _, other := range s.fleet.hosts {
		if other != h {
			links = append(links, both(h, other)...)
		}
	}
	return links
}

// awaitWhole waits until the lost id is out of a committed configuration that has all its voters.
func (s *schedule) awaitWhole(lost *cluster.Cluster) {
	for s.wait(2*time.Second, 4*time.Second) {
		_, n := s.fleet.leader()
		if n == nil {
			continue
		}
		before, voters, gone := n.cluster.Status(), 0, true
		for _, m := range n.cluster.Members() {
			if m.Role == cluster.RoleVoter {
				voters++
			}
			gone = gone && (m.ID != lost.Self() || m.Role == cluster.RoleNone)
		}
		ctx, cancel := context.WithTimeout(n.endpoint.alive, 10*time.Second)
		_, err := n.cluster.ReadIndex(ctx)
		cancel()
		after := n.cluster.Status()
		if gone && voters == s.fleet.options.Voters && err == nil && after.Leader == n.cluster.Self() &&
			after.Term == before.Term && after.CommitIndex >= before.LastIndex {
			return
		}
	}
}
