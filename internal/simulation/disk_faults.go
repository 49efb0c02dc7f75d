package simulation

import (
	"context"
	"time"

	"github.com/ocistern/ocistern/cluster"
)

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

// leave makes a member leave for good; its host comes back as a new node, with an empty disk.
func (s *schedule) leave() {
	s.losing(s.any(), func(h *host) {
		n := h.running.Load()
		if !s.operate(cluster.Operation{Kind: cluster.OperationLeave, Node: string(n.cluster.Self())}) {
			s.wait(orderTime, orderTime+10*time.Second) // the leader may still carry it out
			return
		}
		h.crash()
		if err := h.wipe(false); err != nil {
			s.fleet.failures.add("%s: %v", h.name, err)
		}
		s.fleet.revive(h)
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
		s.awaitWhole(h, lost.cluster)
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

// awaitWhole waits until a committed configuration has all its voters and, unless it was not lost after all, not the lost id.
func (s *schedule) awaitWhole(h *host, lost *cluster.Cluster) {
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
		if now := h.running.Load(); now != nil && now.cluster.Self() == lost.Self() {
			gone = gone || now.cluster.Ready() == nil // it did not leave, or somebody planted that it keeps its id
		}
		if gone && voters == s.fleet.options.Voters && err == nil && after.Leader == n.cluster.Self() &&
			after.Term == before.Term && after.CommitIndex >= before.LastIndex {
			return
		}
	}
}
