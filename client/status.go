package client

import (
	"context"
	"sync"
	"time"

	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
)

// Status is what one node tells about itself, its cluster and its catalog.
type Status struct {
	// Version is the version of the node's program.
	Version string `json:"version"`
	// ClusterID is empty until the node belongs to a cluster.
	ClusterID string `json:"clusterId"`
	// Leader is the id of the leader as this node knows it; empty when there is none, so no quorum.
	Leader string `json:"leader"`
	// Term is the Raft term.
	Term uint64 `json:"term"`
	// FeatureLevel is that of the cluster, as far as the node has applied it. It rises when the builds of all members
	// support more; SupportedFeatureLevel is what the node's does.
	FeatureLevel          uint32 `json:"featureLevel"`
	SupportedFeatureLevel uint32 `json:"supportedFeatureLevel"`
	// Notices are what the node sees that only an operator can settle, each with what to do next: clusters that were recovered
	// from one another and run beside each other, a quorum that is lost because voters have lost their Raft state.
	Notices []string `json:"notices,omitempty"`
	// Node is the node that answered.
	Node Member `json:"node"`
	// Members are all members that the node knows, itself included.
	Members []Member `json:"members"`
	// Catalog counts what the node's catalog holds.
	Catalog CatalogStatus `json:"catalog"`
	// Content counts what lies on the node's disk and in its memory.
	Content ContentStatus `json:"content"`
	// Upstreams are the upstream registries, with the requests that this node sent to each.
	Upstreams []UpstreamStatus `json:"upstreams"`
}

// Member is one member of the cluster.
type Member struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Role is voter, nonvoter, or none for a member outside the Raft configuration.
	Role   string `json:"role"`
	Leader bool   `json:"leader"`
	// State is alive, suspect, dead or left, as the answering node's gossip has it.
	State string `json:"state"`
	// AppliedIndex is the catalog index that the member has applied; zero where the answering node does not know it.
	AppliedIndex uint64 `json:"appliedIndex"`
	// The addresses are host:port.
	RaftAddress     string `json:"raftAddress"`
	GRPCAddress     string `json:"grpcAddress"`
	RegistryAddress string `json:"registryAddress"`
}

// CatalogStatus counts the records of a catalog.
type CatalogStatus struct {
	Index          uint64 `json:"index"`
	Tags           uint64 `json:"tags"`
	Manifests      uint64 `json:"manifests"`
	ReferrersLists uint64 `json:"referrersLists"`
	Absences       uint64 `json:"absences"`
	Blobs          uint64 `json:"blobs"`
	Links          uint64 `json:"links"`
	// CommandHash is a running SHA-256 over all commands applied: equal on all nodes at the same index.
	CommandHash string `json:"commandHash"`
	// Digest is a SHA-256 over the whole catalog; empty unless asked for.
	Digest string `json:"digest,omitempty"`
	// Comparison is how CommandHash compared with the voters' when the node last looked; nil before the first time.
	Comparison *Comparison `json:"comparison,omitempty"`
}

// Comparison counts the voters of which a node knew the command hash at an index, and those that had its own.
type Comparison struct {
	Index  uint64 `json:"index"`
	Voters uint32 `json:"voters"`
	Told   uint32 `json:"told"`
	Equal  uint32 `json:"equal"`
	// Disputed says that voters differ and no majority of them agrees: the node does not answer until that is settled.
	Disputed bool `json:"disputed,omitempty"`
}

// ContentStatus counts the blobs of one node. Sizes are in bytes.
type ContentStatus struct {
	Blobs       uint64 `json:"blobs"`
	Bytes       uint64 `json:"bytes"`
	MemoryBytes uint64 `json:"memoryBytes"`
	// FreeBytes of the node's disk are left. Full says that they are too few to store content; ReserveGivenUp that the disk is
	// full and the raft log has the last of it.
	FreeBytes      uint64 `json:"freeBytes"`
	Full           bool   `json:"full"`
	ReserveGivenUp bool   `json:"reserveGivenUp"`
}

// UpstreamStatus is one configured upstream registry.
type UpstreamStatus struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Requests uint64 `json:"requests"`
}

// StatusOption asks for more than the usual status.
type StatusOption func(*statusOptions)

type statusOptions struct {
	catalogDigest bool
}

// WithCatalogDigest asks for a digest of the whole catalog, which costs the node time in proportion to its size.
func WithCatalogDigest() StatusOption {
	return func(o *statusOptions) { o.catalogDigest = true }
}

// Status returns the view of one node, whichever answers.
func (c *Client) Status(ctx context.Context, opts ...StatusOption) (*Status, error) {
	var status *Status
	err := c.call(ctx, func(ctx context.Context, api registryv1.RegistryServiceClient) (err error) {
		status, err = getStatus(ctx, api, opts)
		return err
	})
	return status, err
}

// NodeStatus is the answer of the node at one endpoint, or why there is none.
type NodeStatus struct {
	Endpoint string
	Status   *Status
	Err      error
}

// StatusAll asks every endpoint at the same time, each once, and returns their answers in the order given to New.
func (c *Client) StatusAll(ctx context.Context, opts ...StatusOption) []NodeStatus {
	ctx, cancel := context.WithTimeout(ctx, min(c.options.timeout, c.options.attemptTimeout))
	defer cancel()
	answers := make([]NodeStatus, len(c.pool.endpoints))
	var all sync.WaitGroup
	for i, node := range c.pool.endpoints {
		all.Go(func() {
			status, err := getStatus(ctx, node.api, opts)
			if err == nil {
				c.pool.learned(i, status, time.Time{})
			} else {
				err = describe(node, err)
			}
			answers[i] = NodeStatus{Endpoint: node.address, Status: status, Err: err}
		})
	}
	all.Wait()
	return answers
}
