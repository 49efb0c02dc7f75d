package cluster

import (
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
)

// action is one kind of change of the Raft configuration.
type action string

const (
	actionAdd     action = "add as nonvoter"
	actionPromote action = "promote to voter"
	actionMove    action = "change address"
	actionReplace action = "remove, since another node listens at its address"
	actionRemove  action = "remove, since it is dead"
	actionRelease action = "remove, since it is retired"
)

// change is a wish of the leader; it is checked with the node itself before it is carried out.
type change struct {
	action action
	// node is the one that gossip has seen alive, and Address where it says that it is; for actionRemove and actionRelease, the one to go.
	node raft.Server
	peer string
	// replaced is the old id at node's address, for actionReplace.
	replaced raft.ServerID
}

// gone returns the member that goes, empty for none.
func (w change) gone() raft.ServerID {
	switch w.action {
	case actionReplace:
		return w.replaced
	case actionRemove, actionRelease:
		return w.node.ID
	default:
		return ""
	}
}

// view is what the leader decides upon.
type view struct {
	term    uint64 // in which it was taken
	self    catalog.NodeID
	cluster string
	expect  int
	servers []raft.Server
	seen    map[catalog.NodeID]sighting
	// heard is what the leader's own heartbeats tell, now. deadAfter is how long they must have failed before a member
	// counts as dead (0: never), steady how long they must have been answered before a nonvoter takes its place.
	heard             map[raft.ServerID]contact
	now               time.Time
	deadAfter, steady time.Duration
	// silence is how old the last answer to a heartbeat may be for a member that is counted on.
	silence time.Duration
}

// changes returns what would bring the configuration nearer to what is to be, most urgent first. A dead voter is removed
// only when a nonvoter has taken its place: a voter less would not make the cluster bear more.
func (v view) changes() []change {
	var wishes []change
	for _, id := range v.candidates() {
		if wish, ok := v.wish(id, v.seen[id]); ok {
			wishes = append(wishes, wish)
		}
	}
	for _, server := range v.servers {
		switch {
		case v.retired(server.ID) && (v.alive(server.ID) || v.silent(server.ID)) && v.mayRemove(server):
			peer := v.seen[catalog.NodeID(server.ID)].Peer
			wishes = append(wishes, change{action: actionRelease, node: server, peer: peer})
		case v.dead(server.ID) && (server.Suffrage != raft.Voter || v.voters() > v.expect && v.mayRemove(server)):
			wishes = append(wishes, change{action: actionRemove, node: server})
		}
	}
	urgency := []action{actionReplace, actionMove, actionAdd, actionPromote, actionRelease, actionRemove}
	slices.SortStableFunc(wishes, func(a, b change) int {
		return slices.Index(urgency, a.action) - slices.Index(urgency, b.action)
	})
	return wishes
}

// candidates returns the living nodes of this cluster or of none, sorted.
func (v view) candidates() []catalog.NodeID {
	var ids []catalog.NodeID
	for id, s := range v.seen {
		if s.State == StateAlive && !s.Leaving && !s.Retired && (s.Cluster == v.cluster || s.empty()) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b catalog.NodeID) int { return strings.Compare(string(a), string(b)) })
	return ids
}

func (v view) wish(id catalog.NodeID, s sighting) (change, bool) {
	wish := change{peer: s.Peer, node: raft.Server{
		ID: raft.ServerID(id), Address: raft.ServerAddress(s.Raft), Suffrage: raft.Nonvoter,
	}}
	current, listed := v.server(func(server raft.Server) bool { return server.ID == wish.node.ID })
	occupant, occupied := v.server(func(server raft.Server) bool {
		return server.Address == wish.node.Address && server.ID != wish.node.ID
	})
	switch {
	case occupied && (v.alive(occupant.ID) || !v.mayRemove(occupant)):
		return change{}, false
	case occupied:
		wish.action, wish.replaced = actionReplace, occupant.ID
	case !listed:
		wish.action = actionAdd
	case current.Address != wish.node.Address:
		wish.action, wish.node.Suffrage = actionMove, current.Suffrage
	case current.Suffrage != raft.Voter && v.mayPromote(current):
		wish.action, wish.node.Suffrage = actionPromote, raft.Voter
	default:
		return change{}, false
	}
	return wish, true
}

func (v view) server(is func(raft.Server) bool) (raft.Server, bool) {
	if at := slices.IndexFunc(v.servers, is); at >= 0 {
		return v.servers[at], true
	}
	return raft.Server{}, false
}

func (v view) alive(id raft.ServerID) bool {
	return catalog.NodeID(id) == v.self || v.seen[catalog.NodeID(id)].State == StateAlive
}

// dead tells whether a member has answered no heartbeat of this leader for deadAfter, and gossip does not object.
func (v view) dead(id raft.ServerID) bool {
	heard, known := v.heard[id]
	return v.deadAfter > 0 && known && v.now.Sub(heard.last) >= v.deadAfter && !v.alive(id)
}

// silent tells whether a member has answered no heartbeat of this leader for a while, and gossip does not object. That is
// enough for one that is retired: it does not start again on its disk.
func (v view) silent(id raft.ServerID) bool {
	heard := v.heard[id]
	return heard.failed && v.now.Sub(heard.last) > v.silence && !v.alive(id)
}

func (v view) voters() int { return v.count(func(raft.Server) bool { return true }) }

// count returns the number of voters that are so.
func (v view) count(so func(raft.Server) bool) int {
	count := 0
	for _, server := range v.servers {
		if server.Suffrage == raft.Voter && so(server) {
			count++
		}
	}
	return count
}

// mayPromote tells whether a voter is missing, or a nonvoter is to take the place of one that leaves or of a dead one: one
// place at a time, and a dead one's only by a node that has proved itself.
func (v view) mayPromote(spare raft.Server) bool {
	staying := v.count(func(voter raft.Server) bool { return !v.retired(voter.ID) })
	lasting := v.count(func(voter raft.Server) bool { return !v.retired(voter.ID) && !v.dead(voter.ID) })
	return v.voters() <= v.expect &&
		(staying < v.expect || lasting < v.expect && v.heard[spare.ID].steady(v.now, v.steady))
}

// retired tells whether a member has said that it takes no part any more.
func (v view) retired(id raft.ServerID) bool { return v.seen[catalog.NodeID(id)].Retired }

// mayRemove tells whether the voters that are left are a quorum of themselves by those that answer. Raft would be safe
// without it; the cluster might stand still.
func (v view) mayRemove(gone raft.Server) bool {
	if gone.Suffrage != raft.Voter {
		return true
	}
	left := v.count(func(voter raft.Server) bool { return voter.ID != gone.ID })
	living := v.count(func(voter raft.Server) bool { return voter.ID != gone.ID && v.answers(voter.ID) })
	return living > left/2
}

// answers tells whether gossip sees a member alive and its last heartbeat was answered a moment ago, if there was one: one that
// is under way tells nothing until it fails. One that leaves is not counted on.
func (v view) answers(id raft.ServerID) bool {
	heard, known := v.heard[id]
	return !v.retired(id) && (catalog.NodeID(id) == v.self ||
		v.alive(id) && !heard.failed && (!known || v.now.Sub(heard.last) <= v.silence))
}
