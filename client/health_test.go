package client_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ocistern/ocistern/client"
)

func TestHealth(t *testing.T) {
	voter := func(state string) client.Member { return client.Member{Name: "n", Role: "voter", State: state} }
	for name, c := range map[string]struct {
		status client.Status
		want   error
	}{
		"whole":         {client.Status{Leader: "x", Members: []client.Member{voter("alive"), voter("alive")}}, nil},
		"voter dead":    {client.Status{Leader: "x", Members: []client.Member{voter("alive"), voter("dead")}}, client.ErrDegraded},
		"voter suspect": {client.Status{Leader: "x", Members: []client.Member{voter("suspect")}}, client.ErrDegraded},
		"others dead":   {client.Status{Leader: "x", Members: []client.Member{{Role: "none", State: "dead"}, {Role: "nonvoter", State: "left"}}}, nil},
		"disputed": {client.Status{Leader: "x", Catalog: client.CatalogStatus{
			Comparison: &client.Comparison{Voters: 3, Told: 2, Equal: 1, Disputed: true}}}, client.ErrDiverged},
		"some are silent": {client.Status{Leader: "x", Catalog: client.CatalogStatus{
			Comparison: &client.Comparison{Voters: 3, Told: 2, Equal: 2}}}, nil},
		"notice":               {client.Status{Leader: "x", Members: []client.Member{voter("alive")}, Notices: []string{"look"}}, client.ErrDegraded},
		"notice and no leader": {client.Status{Notices: []string{"look"}}, client.ErrNoQuorum},
		"no leader":            {client.Status{Members: []client.Member{voter("dead")}}, client.ErrNoQuorum},
	} {
		if err := c.status.Health(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		for _, notice := range c.status.Notices {
			if err := c.status.Health(); err == nil || !strings.Contains(err.Error(), notice) {
				t.Errorf("%s: %v does not say %q", name, err, notice)
			}
		}
	}
}

func TestHealthAll(t *testing.T) {
	node := func(cluster string, index uint64, hash, digest string) client.NodeStatus {
		return client.NodeStatus{Endpoint: "e", Status: &client.Status{
			ClusterID: cluster, Leader: "x", Catalog: client.CatalogStatus{Index: index, CommandHash: hash, Digest: digest},
		}}
	}
	for name, c := range map[string]struct {
		nodes []client.NodeStatus
		want  error
	}{
		"equal":             {[]client.NodeStatus{node("c", 5, "h", "d"), node("c", 5, "h", "d"), node("c", 4, "g", "e")}, nil},
		"command hash":      {[]client.NodeStatus{node("c", 5, "h", "d"), node("c", 4, "g", "e"), node("c", 5, "i", "d")}, client.ErrDigestMismatch},
		"digest":            {[]client.NodeStatus{node("c", 5, "h", "d"), node("c", 5, "h", "e")}, client.ErrDigestMismatch},
		"other cluster":     {[]client.NodeStatus{node("c", 5, "h", "d"), node("k", 5, "i", "e")}, client.ErrClusterMismatch},
		"one away":          {[]client.NodeStatus{{Err: client.ErrUnavailable}, node("c", 5, "h", "d")}, client.ErrDegraded},
		"the worst of both": {[]client.NodeStatus{{Err: client.ErrUnavailable}, node("c", 5, "h", "d"), node("c", 5, "h", "e")}, client.ErrDigestMismatch},
	} {
		if err := client.HealthAll(c.nodes); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
