package cluster

import (
	"context"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
)

// Peers asks other nodes. address is Member.Addresses.Peer. All methods return errors of package errdef and must be
// safe for concurrent use.
type Peers interface {
	LeaderPeers
	MemberPeers
}

// LeaderPeers asks the leader. A node that does not lead answers NOT_LEADER.
type LeaderPeers interface {
	// Apply calls Cluster.ApplyLocal of the node at address. Reason UNAVAILABLE says that the request was certainly not
	// delivered, so that it is safe to submit it again; where it may have been delivered and the answer was lost, the
	// reason must be OUTCOME_UNKNOWN.
	Apply(ctx context.Context, address string, request fsm.Request) (catalog.LogIndex, error)
	// ReadIndex calls Cluster.ReadIndexLocal of the node at address.
	ReadIndex(ctx context.Context, address string, witness Witness) (catalog.LogIndex, error)
	// Survey calls Cluster.SurveyLocal of the node at address.
	Survey(ctx context.Context, address string) ([]Member, error)
	// Operate calls Cluster.OperateLocal of the node at address.
	Operate(ctx context.Context, address string, operation Operation) (catalog.NodeID, error)
}

// MemberPeers asks any node.
//
// An answer CLUSTER_MISMATCH is due only when caller and callee both belong to a cluster and these differ: a node
// with an empty disk is asked by the leader of the cluster that it will join, and asks nodes that already belong to
// one.
type MemberPeers interface {
	// Promise calls Cluster.Promise of the node at address.
	Promise(ctx context.Context, address string, p Promise) error
	// Release calls Cluster.Release of the node at address.
	Release(ctx context.Context, address string, p Promise) error
	// State calls Cluster.State of the node at address. The answer must not be older than the call.
	State(ctx context.Context, address string) (NodeState, error)
	// HashAt calls Cluster.HashAt of the node at address.
	HashAt(ctx context.Context, address string, node catalog.NodeID, index catalog.LogIndex) (Hash, error)
	// Retire calls Cluster.Retire of the node at address.
	Retire(ctx context.Context, address string, node catalog.NodeID) error
}

// Promise reserves a node with an empty disk for a cluster about to be bootstrapped by Proposer from Candidates.
type Promise struct {
	ClusterID  string         `json:"clusterId"`
	Proposer   catalog.NodeID `json:"proposer"`
	Candidates []Candidate    `json:"candidates"` // sorted by id, proposer included
}

// Candidate is a node that will be a voter of the new cluster.
type Candidate struct {
	ID          catalog.NodeID `json:"id"`
	RaftAddress string         `json:"raftAddress"`
}

// NodeState is how far a node has come.
type NodeState struct {
	ID catalog.NodeID
	// ClusterID is the cluster the node is a member of or is promised to; empty for neither.
	ClusterID string
	// Empty tells that the node has no Raft state at all. A promised node may be empty.
	Empty bool
	// Term is the highest term that this node has seen: it votes in none before it.
	Term uint64
	// Applied is the index of its catalog, Last that of the last entry in its log.
	Applied, Last catalog.LogIndex
	// FeatureLevel is the highest level that this node lets the cluster rise to; zero, from builds that know none, is the
	// first.
	FeatureLevel catalog.FeatureLevel
	// Retired tells that the node's id is to take no part in its cluster any more.
	Retired bool
}
