package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/internal/errdef"
)

// showCluster prints one view of the cluster and returns its health. Nodes that did not answer are left to the view's
// members to tell.
func showCluster(out io.Writer, output format, nodes []client.NodeStatus) error {
	view, err := combine(nodes)
	if err != nil {
		return err
	}
	if output == formatJSON {
		err = printJSON(out, view)
	} else {
		err = clusterTable(view).print(out)
	}
	if err != nil {
		return err
	}
	if err := view.Health(); err != nil {
		return err
	}
	for _, node := range nodes { // the view is of one of them
		if node.Err == nil && (node.Status.Content.Full || node.Status.Content.ReserveGivenUp) {
			return node.Status.Health()
		}
	}
	return nil
}

// combine takes the view of the node that has applied most, and adds what only each node knows of itself: the index it
// has applied, the requests it sent upstream, what it notices, and that it does not answer, which gossip learns only some
// seconds later.
func combine(nodes []client.NodeStatus) (*client.Status, error) {
	var view *client.Status
	var notices []string
	applied, requests, silent := map[string]uint64{}, map[string]uint64{}, map[string]bool{}
	for _, node := range nodes {
		if node.Err != nil {
			silent[node.Endpoint] = true
			continue
		}
		for _, notice := range node.Status.Notices {
			if !slices.Contains(notices, notice) {
				notices = append(notices, notice)
			}
		}
		applied[node.Status.Node.ID] = node.Status.Node.AppliedIndex
		for _, upstream := range node.Status.Upstreams {
			requests[upstream.Name] += upstream.Requests
		}
		if view == nil || node.Status.Catalog.Index > view.Catalog.Index {
			view = node.Status
		}
	}
	if view == nil {
		return nil, nodes[0].Err
	}
	view.Notices = notices
	for i, member := range view.Members {
		view.Members[i].AppliedIndex = cmp.Or(applied[member.ID], member.AppliedIndex)
		if silent[member.GRPCAddress] && member.State == "alive" {
			view.Members[i].State = "unreachable"
		}
	}
	slices.SortFunc(view.Members, func(a, b client.Member) int { return cmp.Compare(a.Name, b.Name) })
	for i, upstream := range view.Upstreams {
		view.Upstreams[i].Requests = requests[upstream.Name]
	}
	return view, nil
}

func clusterTable(s *client.Status) *table {
	t := &table{}
	t.row("cluster", cmp.Or(s.ClusterID, "none yet"))
	t.row("leader", fmt.Sprintf("%s (term %d)", leaderName(s), s.Term))
	t.row("level", levelText(s))
	t.row("catalog", fmt.Sprintf("index %d: %d tags, %d manifests, %d referrers lists, %d absences, %d blobs, %d links",
		s.Catalog.Index, s.Catalog.Tags, s.Catalog.Manifests, s.Catalog.ReferrersLists, s.Catalog.Absences, s.Catalog.Blobs,
		s.Catalog.Links))
	t.row("command hash", fmt.Sprintf("%s (%s)", short(s.Catalog.CommandHash), compared(s.Catalog.Comparison)))
	if s.Catalog.Digest != "" {
		t.row("digest", s.Catalog.Digest)
	}
	for _, notice := range s.Notices {
		t.row("notice", notice)
	}
	t.row("content", fmt.Sprintf("%d blobs, %s on disk and %s in memory of %s",
		s.Content.Blobs, size(s.Content.Bytes), size(s.Content.MemoryBytes), s.Node.Name))
	t.row()
	t.row("NODE", "ROLE", "STATE", "APPLIED", "GRPC", "REGISTRY", "RAFT", "ID")
	for _, m := range s.Members {
		role := m.Role
		if m.ID == s.Leader {
			role = "leader"
		}
		t.row(m.Name, role, m.State, known(m.AppliedIndex), m.GRPCAddress, m.RegistryAddress, m.RaftAddress, m.ID)
	}
	if len(s.Upstreams) > 0 {
		t.row()
		t.row("UPSTREAM", "URL", "REQUESTS")
	}
	for _, u := range s.Upstreams {
		t.row(u.Name, u.URL, u.Requests)
	}
	return t
}

// compared tells how the hash of the node that answered compares with those of the voters.
func compared(c *client.Comparison) string {
	switch {
	case c == nil:
		return "not compared yet"
	case c.Disputed:
		return fmt.Sprintf("disputed: %d of %d voters have it at index %d", c.Equal, c.Voters, c.Index)
	default:
		return fmt.Sprintf("equal on %d of %d voters at index %d", c.Equal, c.Voters, c.Index)
	}
}

// levelText says more only where the level could be higher.
func levelText(s *client.Status) string {
	if s.SupportedFeatureLevel > s.FeatureLevel {
		return fmt.Sprintf("%d (%s supports %d)", s.FeatureLevel, s.Node.Name, s.SupportedFeatureLevel)
	}
	return fmt.Sprint(s.FeatureLevel)
}

func leaderName(s *client.Status) string {
	for _, member := range s.Members {
		if member.ID == s.Leader {
			return member.Name
		}
	}
	return cmp.Or(s.Leader, "none")
}

// known prints an index that may not be known.
func known(index uint64) string {
	if index == 0 {
		return "-"
	}
	return fmt.Sprint(index)
}

// nodeJSON is one endpoint in the output of --all: a status or an error.
type nodeJSON struct {
	Endpoint string         `json:"endpoint"`
	Status   *client.Status `json:"status,omitempty"`
	Error    *errorJSON     `json:"error,omitempty"`
}

type errorJSON struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// showAll prints the status of each endpoint and returns what is wrong with them together.
func showAll(out io.Writer, output format, nodes []client.NodeStatus) error {
	answers := make([]nodeJSON, 0, len(nodes))
	t := &table{}
	t.row("ENDPOINT", "NODE", "ROLE", "VERSION", "LEADER", "TERM", "INDEX", "COMMAND HASH", "DIGEST")
	silent := 0
	for _, node := range nodes {
		if node.Err != nil {
			silent++
			reason := string(errdef.ReasonOf(node.Err))
			answers = append(answers, nodeJSON{Endpoint: node.Endpoint, Error: &errorJSON{reason, node.Err.Error()}})
			t.row(node.Endpoint, "-", reason, "-", "-", "-", "-", "-", "-")
			continue
		}
		answers = append(answers, nodeJSON{Endpoint: node.Endpoint, Status: node.Status})
		s := node.Status
		t.row(node.Endpoint, s.Node.Name, s.Node.Role, s.Version, leaderName(s), s.Term, s.Catalog.Index,
			short(s.Catalog.CommandHash), cmp.Or(s.Catalog.Digest, "-"))
	}
	var err error
	if output == formatJSON {
		err = printJSON(out, map[string]any{"nodes": answers})
	} else {
		err = t.print(out)
	}
	if err != nil {
		return err
	}
	if silent == len(nodes) {
		return nodes[0].Err
	}
	return client.HealthAll(nodes)
}

// short is enough of a hash to compare by eye.
func short(hash string) string { return hash[:min(12, len(hash))] }
