package cluster

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// contacts is the leader's own record of who answers its heartbeats. It is what a dead node is known by; gossip may only
// object. A new leader begins a new one: no clock travels through the log.
type contacts struct {
	mutex sync.Mutex // guards what follows
	term  uint64     // that this record is of
	heard map[raft.ServerID]contact
}

// contact is what heartbeats have told of one member.
type contact struct {
	last   time.Time // of the last answer; before there was one, when this node began to lead it
	since  time.Time // since when every heartbeat was answered; zero after one that was not, and before the first
	failed bool      // the last heartbeat was not answered
}

// steady tells whether all heartbeats have been answered for a while.
func (c contact) steady(now time.Time, while time.Duration) bool {
	return !c.since.IsZero() && now.Sub(c.since) >= while
}

// note records the outcome of one heartbeat.
func (c *contacts) note(id raft.ServerID, err error) {
	now := time.Now()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	known, followed := c.heard[id]
	switch {
	case !followed: // not led by this node, or not any more
		return
	case err != nil:
		known.since, known.failed = time.Time{}, true
	case known.since.IsZero():
		known = contact{last: now, since: now}
	default:
		known.last = now
	}
	c.heard[id] = known
}

// of returns what is recorded of a member, false for one that this node does not lead.
func (c *contacts) of(id raft.ServerID) (contact, bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	known, followed := c.heard[id]
	return known, followed
}

// follow makes the record one of these members in this term, and returns a copy. Who is new to it starts with the benefit
// of the doubt.
func (c *contacts) follow(term uint64, members []raft.Server) map[raft.ServerID]contact {
	now := time.Now()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.term != term {
		c.term, c.heard = term, map[raft.ServerID]contact{}
	}
	maps.DeleteFunc(c.heard, func(id raft.ServerID, _ contact) bool {
		return !slices.ContainsFunc(members, func(member raft.Server) bool { return member.ID == id })
	})
	for _, member := range members {
		if _, known := c.heard[member.ID]; !known {
			c.heard[member.ID] = contact{last: now}
		}
	}
	return maps.Clone(c.heard)
}
