package cluster

import (
	"context"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// addressed joins the node that is meant to its address, which is all that raft passes on to Dial. It keeps the pooled
// connections of two ids at one address apart as well.
func addressed(id raft.ServerID, at raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(id) + "@" + at
}

// Dial implements raft.StreamLayer for an address made by addressed.
func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, at, ok := strings.Cut(string(address), "@")
	if !ok {
		return nil, errdef.New(errdef.Internal, "raft dials %q without saying whom", address)
	}
	conn, reply, err := s.call(catalog.NodeID(id), at, timeout)
	if err != nil {
		return nil, err
	}
	if reply.Verdict != admitted {
		conn.Close()
		return nil, refusal(reply, catalog.NodeID(id), at)
	}
	return conn, nil
}

func refusal(reply answer, meant catalog.NodeID, at string) error {
	switch reply.Verdict {
	case otherCluster:
		return errdef.New(errdef.ClusterMismatch, "node %s at %s belongs to cluster %s", reply.Node, at, reply.Cluster).
			WithRemedy("give each cluster its own addresses; empty the data directory of a node that changes sides")
	case otherNode:
		return errdef.New(errdef.ClusterMismatch, "node %s listens at %s, where node %s was", reply.Node, at, meant)
	default:
		return errdef.New(errdef.StorageFailed, "node %s at %s cannot write its node.json", reply.Node, at)
	}
}

// occupant asks which node listens at a Raft address, under the assumption that it is the meant one.
func (s *stream) occupant(meant catalog.NodeID, at string) (answer, error) {
	conn, reply, err := s.call(meant, at, s.timeout)
	if err != nil {
		return answer{}, err
	}
	conn.Close()
	return reply, nil
}

// call dials, says hello and returns the answer, whatever it is.
func (s *stream) call(target catalog.NodeID, at string, timeout time.Duration) (net.Conn, answer, error) {
	ctx, cancel := context.WithTimeout(s.ended, timeout)
	defer cancel()
	conn, err := s.network.Dial(ctx, at)
	if err != nil {
		return nil, answer{}, errdef.Wrap(errdef.Unavailable, err, "cannot dial node %s", target)
	}
	self := s.identity.current() // promised only, when it is about to become a member: Raft dials nobody before
	reply, err := exchange(conn, hello{Cluster: self.told(), Target: target, Source: self.ID}, timeout)
	if err != nil {
		conn.Close()
		return nil, answer{}, errdef.Wrap(errdef.Unavailable, err, "handshake with node %s at %s", target, at)
	}
	return conn, reply, nil
}

func exchange(conn net.Conn, greeting hello, timeout time.Duration) (answer, error) {
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return answer{}, err
	}
	if err := greeting.write(conn); err != nil {
		return answer{}, err
	}
	reply, err := readAnswer(conn)
	if err != nil {
		return answer{}, err
	}
	return reply, conn.SetDeadline(time.Time{})
}
