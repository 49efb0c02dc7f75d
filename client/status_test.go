package client_test

import (
	"errors"
	"testing"

	"github.com/ocistern/ocistern/client"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
	"github.com/ocistern/ocistern/internal/testnode"
)

func TestStatus(t *testing.T) {
	f := newFixture(t, 3)
	f.each(func(n *testnode.Node) {
		n.SetStatus(&registryv1.GetStatusResponse{
			ClusterId: "c1", Leader: "id-a", Term: 4, Node: &registryv1.Member{Id: n.Address, AppliedIndex: 9},
			Members: []*registryv1.Member{{Id: "id-a", Role: "voter", State: "alive", GrpcAddress: "x:1"}},
			Catalog: &registryv1.Catalog{Index: 9, Tags: 2, Digest: "sha256:ab"},
		})
	})
	f.nodes[1].Stop()
	c, _ := f.open(t)
	status, err := c.Status(t.Context())
	if err != nil || status.ClusterID != "c1" || status.Catalog.Tags != 2 || status.Catalog.Digest != "" ||
		len(status.Members) != 1 || status.Members[0].GRPCAddress != "x:1" {
		t.Fatalf("Status = %+v, %v", status, err)
	}
	all := c.StatusAll(t.Context(), client.WithCatalogDigest())
	for i, node := range all {
		switch {
		case node.Endpoint != f.nodes[i].Address:
			t.Errorf("answer %d is of %s, want %s", i, node.Endpoint, f.nodes[i].Address)
		case i == 1 && !errors.Is(node.Err, client.ErrUnavailable):
			t.Errorf("node that is down: %+v", node)
		case i != 1 && (node.Err != nil || node.Status.Node.ID != node.Endpoint || node.Status.Catalog.Digest != "sha256:ab"):
			t.Errorf("answer %d: %+v", i, node)
		}
	}
}
