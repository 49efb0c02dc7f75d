package cluster

import (
	"encoding/json"

	"github.com/hashicorp/memberlist"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// memberlist calls the methods of this file while it holds its own lock: they must be quick and must not call it.
var (
	_ memberlist.Delegate         = (*gossip)(nil)
	_ memberlist.EventDelegate    = (*gossip)(nil)
	_ memberlist.AliveDelegate    = (*gossip)(nil)
	_ memberlist.ConflictDelegate = (*gossip)(nil)
)

// NodeMeta implements memberlist.Delegate. Its size was checked at the start.
func (g *gossip) NodeMeta(limit int) []byte {
	encoded, err := g.self().encode()
	if err != nil || len(encoded) > limit {
		g.logger.Error("this node cannot tell who it is", "error", err)
		return nil
	}
	return encoded
}

// NotifyAlive implements memberlist.AliveDelegate: it keeps nodes of another cluster, and what is no node of ours, out.
func (g *gossip) NotifyAlive(node *memberlist.Node) error {
	own := g.identity.current()
	if node.Name == string(own.ID) {
		return nil
	}
	told, err := decodeMetadata(node.Meta)
	if err != nil {
		return err
	}
	if told.member() {
		g.recognize(lineage{Cluster: told.Cluster, Node: catalog.NodeID(node.Name), Formers: []string{told.Formerly},
			Disputes: told.Disputes})
	}
	if own.ClusterID == "" || !told.member() || told.Cluster == own.ClusterID {
		return nil
	}
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.strangers[node.Address()] = told.Cluster
	return errdef.New(errdef.ClusterMismatch, "node %s at %s belongs to cluster %s",
		node.Name, node.Address(), told.Cluster)
}

// NotifyJoin implements memberlist.EventDelegate.
func (g *gossip) NotifyJoin(node *memberlist.Node) { g.note(node, StateAlive) }

// NotifyUpdate implements memberlist.EventDelegate.
func (g *gossip) NotifyUpdate(node *memberlist.Node) { g.note(node, StateAlive) }

// NotifyLeave implements memberlist.EventDelegate, for nodes that died and for nodes that left.
func (g *gossip) NotifyLeave(node *memberlist.Node) { g.note(node, StateDead) }

func (g *gossip) note(node *memberlist.Node, state State) {
	if node.Name == string(g.identity.current().ID) {
		return
	}
	told, err := decodeMetadata(node.Meta)
	if err != nil {
		return // NotifyAlive has refused it, and memberlist has logged that
	}
	if state == StateDead && told.Leaving {
		state = StateLeft
	}
	g.mutex.Lock()
	g.sightings[catalog.NodeID(node.Name)] = sighting{metadata: told, Gossip: node.Address(), State: state}
	delete(g.strangers, node.Address())
	g.mutex.Unlock()
	g.poke()
}

// poke makes the steering loop look again.
func (g *gossip) poke() {
	select {
	case g.changed <- struct{}{}:
	default: // a change is pending already
	}
}

// NotifyConflict implements memberlist.ConflictDelegate.
func (g *gossip) NotifyConflict(existing, other *memberlist.Node) {
	g.logger.Error("two nodes have one id; was a data directory copied?",
		"node", existing.Name, "address", existing.Address(), "other", other.Address())
}

// NotifyMsg implements memberlist.Delegate; no messages of our own are gossiped.
func (g *gossip) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (g *gossip) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate: it tells all that a cluster was, which would not fit in the metadata.
func (g *gossip) LocalState(bool) []byte { return g.lineage().encode(g.logger) }

// MergeRemoteState implements memberlist.Delegate.
func (g *gossip) MergeRemoteState(encoded []byte, _ bool) {
	var told lineage
	if err := json.Unmarshal(encoded, &told); err != nil {
		g.logger.Debug("another node tells something that is not understood", "error", err)
		return
	}
	g.recognize(told)
}
