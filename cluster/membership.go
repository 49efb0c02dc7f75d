package cluster

import (
	"slices"
	"strings"

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
)

// change is a wish of the leader; it is checked with the node itself before it is carried out.
type change struct {
	action action
	// node is the one that gossip has seen alive, and Address where it says that it is.
	node raft.Server
	peer string
	// replaced is the old id at node's address, for actionReplace.
	replaced raft.ServerID
}

// view is what the leader decides upon.
type view struct {
	self    catalog.NodeID
	cluster string
	expect  int
	servers []raft.Server
	seen    map[catalog.NodeID]sighting
}

// changes returns what would bring the configuration nearer to what gossip shows, most urgent first. A dead voter is
// never among it: only a node that answers in its place gives a reason to remove it.
func (v view) changes() []change {
	var wishes []change
	for _, id := range v.candidates() {
		if wish, ok := v.wish(id, v.seen[id]); ok {
			wishes = append(wishes, wish)
		}
	}
	urgency := []action{actionReplace, actionMove, actionAdd, actionPromote}
	slices.SortStableFunc(wishes, func(a, b change) int {
		return slices.Index(urgency, a.action) - slices.Index(urgency, b.action)
	})
	return wishes
}

// candidates returns the living nodes of this cluster or of none, sorted.
func (v view) candidates() []catalog.NodeID {
	var ids []catalog.NodeID
	for id, s := range v.seen {
		if s.State == StateAlive && !s.Leaving && (s.Cluster == v.cluster || s.empty()) {
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
	case current.Suffrage != raft.Voter && v.voters() < v.expect:
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

func (v view) voters() int {
	count := 0
	for _, server := range v.servers {
		if server.Suffrage == raft.Voter {
			count++
		}
	}
	return count
}

// mayRemove tells whether the voters that are left are a quorum of themselves by those alive. Raft would be safe
// without it; the cluster might stand still.
func (v view) mayRemove(gone raft.Server) bool {
	if gone.Suffrage != raft.Voter {
		return true
	}
	left, living := 0, 0
	for _, server := range v.servers {
		if server.Suffrage != raft.Voter || server.ID == gone.ID {
			continue
		}
		left++
		if v.alive(server.ID) {
			living++
		}
	}
	return living > left/2
}
