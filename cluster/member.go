package cluster

import (
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
)

// Role is a node's part in Raft.
type Role string

// The roles.
const (
	RoleVoter    Role = "voter"    // counts in elections and commits
	RoleNonvoter Role = "nonvoter" // receives the log
	RoleNone     Role = "none"     // known from gossip, not in the Raft configuration
)

// State is what gossip thinks of a node.
type State string

// The states.
const (
	StateAlive   State = "alive"
	StateSuspect State = "suspect" // in the Raft configuration, but not heard of since this node started
	StateDead    State = "dead"
	StateLeft    State = "left"    // shut down in good order; still a member
	StateRetired State = "retired" // alive, and on its way out of the cluster for good, or out already
)

// Member is one node as this node knows it.
type Member struct {
	ID        catalog.NodeID
	Name      string // empty when not heard of
	Role      Role
	Leader    bool
	State     State
	Addresses Addresses // Raft from the configuration; the others are empty when not heard of

	// What only Survey finds out: the index of the member's catalog and the highest feature level that it lets the cluster
	// rise to, zero for one that did not answer; and for how long it has answered no heartbeat of the leader, zero for the
	// leader itself and for no member.
	Applied catalog.LogIndex
	Level   catalog.FeatureLevel
	Silence time.Duration
}

// Members returns all nodes in the Raft configuration or known from gossip, sorted by id, this node among them.
func (c *Cluster) Members() []Member {
	found := map[catalog.NodeID]Member{c.Self(): c.selfMember()}
	for id, s := range c.gossip.seen() {
		state := s.State
		if state == StateAlive && s.Retired {
			state = StateRetired
		}
		found[id] = Member{ID: id, Name: s.Name, Role: RoleNone, State: state, Addresses: Addresses{
			Raft: s.Raft, Gossip: s.Gossip, Peer: s.Peer, GRPC: s.GRPC, Registry: s.Registry,
		}}
	}
	_, leader := c.raft.LeaderWithID()
	for _, server := range c.servers() {
		id := catalog.NodeID(server.ID)
		m, heard := found[id]
		if !heard {
			m = Member{ID: id, State: StateSuspect}
		}
		m.Role, m.Leader, m.Addresses.Raft = roleOf(server), server.ID == leader, string(server.Address)
		found[id] = m
	}
	members := make([]Member, 0, len(found))
	for _, m := range found {
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return members
}

func (c *Cluster) selfMember() Member {
	state := StateAlive
	if c.identity.retired() != nil {
		state = StateRetired
	}
	return Member{ID: c.Self(), Name: c.config.Name, Role: RoleNone, State: state, Addresses: c.config.Advertise}
}

// servers returns the latest Raft configuration, committed or not.
func (c *Cluster) servers() []raft.Server {
	return c.raft.GetConfiguration().Configuration().Servers // answered from memory; it cannot fail
}

func roleOf(server raft.Server) Role {
	if server.Suffrage == raft.Voter {
		return RoleVoter
	}
	return RoleNonvoter
}

// Member returns one node.
func (c *Cluster) Member(id catalog.NodeID) (Member, bool) {
	for _, m := range c.Members() {
		if m.ID == id {
			return m, true
		}
	}
	return Member{}, false
}

// Living returns the ids of the members of the Raft configuration that are alive, sorted; this node is always among
// them.
func (c *Cluster) Living() []catalog.NodeID {
	var living []catalog.NodeID
	for _, m := range c.Members() {
		if m.ID == c.Self() || m.Role != RoleNone && m.State == StateAlive {
			living = append(living, m.ID)
		}
	}
	return living
}

// Leader returns the leader this node knows of. It may have been deposed already.
func (c *Cluster) Leader() (Member, bool) {
	_, id := c.raft.LeaderWithID()
	if id == "" {
		return Member{}, false
	}
	return c.Member(catalog.NodeID(id))
}
