package nodes

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ocistern/ocistern/e2e/upstream"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
)

// Catalog is what a node's copy of the catalog looks like. Two nodes hold the same one when their Catalogs are equal.
type Catalog struct {
	// Index of the last entry applied.
	Index uint64
	// CommandHash is a running digest of all entries applied, Digest one of everything that the catalog holds.
	CommandHash, Digest string
	// Counts of what it holds.
	Manifests, Blobs, ReferrersLists uint64
}

// String prints the identity of c in short.
func (c Catalog) String() string {
	return fmt.Sprintf("index %d, commands %.12s, content %.19s", c.Index, c.CommandHash, c.Digest)
}

// Status asks the node about itself. A digest of the whole catalog is in the answer when catalogDigest is set.
func (n *Node) Status(ctx context.Context, catalogDigest bool) (status *registryv1.GetStatusResponse, err error) {
	connection, err := grpc.NewClient(n.GRPC(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("status of %s: %w", n.Name, err)
	}
	defer func() { err = errors.Join(err, connection.Close()) }()
	status, err = registryv1.NewRegistryServiceClient(connection).
		GetStatus(ctx, &registryv1.GetStatusRequest{CatalogDigest: catalogDigest})
	if err != nil {
		return nil, fmt.Errorf("status of %s: %w", n.Name, err)
	}
	return status, nil
}

// Catalog asks the node for the state of its catalog.
func (n *Node) Catalog(ctx context.Context) (Catalog, error) {
	status, err := n.Status(ctx, true)
	if err != nil {
		return Catalog{}, err
	}
	told := status.GetCatalog()
	if told.GetDigest() == "" || told.GetCommandHash() == "" {
		return Catalog{}, fmt.Errorf("%s tells no digest of its catalog: %v", n.Name, told)
	}
	return Catalog{
		Index: told.GetIndex(), CommandHash: told.GetCommandHash(), Digest: told.GetDigest(),
		Manifests: told.GetManifests(), Blobs: told.GetBlobs(), ReferrersLists: told.GetReferrersLists(),
	}, nil
}

// Leader waits until all running nodes name the same leader, one that runs, and returns it.
func (c *Cluster) Leader(ctx context.Context) (*Node, error) {
	var leader *Node
	err := Await(ctx, func(ctx context.Context) (err error) {
		leader, err = c.leader(ctx)
		return err
	})
	return leader, err
}

func (c *Cluster) leader(ctx context.Context) (*Node, error) {
	running, named := c.Running(), ""
	for _, node := range running {
		status, err := node.Status(ctx, false)
		if err != nil {
			return nil, err
		}
		name := leaderName(status)
		if name == "" || named != "" && named != name {
			return nil, fmt.Errorf("%s names leader %q, an earlier node %q", node.Name, name, named)
		}
		named = name
	}
	for _, node := range running {
		if node.Name == named {
			return node, nil
		}
	}
	return nil, fmt.Errorf("the named leader %q does not run", named)
}

// leaderName returns the name of the member whose id the node names as leader.
func leaderName(status *registryv1.GetStatusResponse) string {
	for _, member := range status.GetMembers() {
		if member.GetId() == status.GetLeader() || member.GetName() == status.GetLeader() {
			return member.GetName()
		}
	}
	return ""
}

// SameCatalog waits until all running nodes hold the same catalog and returns it: same entries applied, same content.
// The error tells each node's.
func (c *Cluster) SameCatalog(ctx context.Context) (Catalog, error) {
	return SameCatalog(ctx, c.Running())
}

// SameCatalog does the same for any nodes.
func SameCatalog(ctx context.Context, running []*Node) (Catalog, error) {
	var same Catalog
	err := Await(ctx, func(ctx context.Context) (err error) {
		same, err = sameCatalog(ctx, running)
		return err
	})
	return same, err
}

// AwaitPublished waits until the catalog of every running node knows all that was fetched from a registry and a node that
// holds it, and they are the same. Callers are answered before that: a node that dies in between may take the knowledge of a
// fetch with it. It counts what has the referrers API; lists of referrers under the tag schema are manifests to the
// ledger.
func (c *Cluster) AwaitPublished(ctx context.Context, ledger *upstream.Ledger) error {
	blobs, lists := ledger.Fetched(upstream.Manifest, upstream.Blob), ledger.Fetched(upstream.Referrers)
	return Await(ctx, func(ctx context.Context) error {
		if err := idle(ctx, c.Running()); err != nil {
			return err
		}
		held, err := sameCatalog(ctx, c.Running())
		if err != nil {
			return err
		}
		if held.Blobs < uint64(blobs) || held.ReferrersLists < uint64(lists) {
			return fmt.Errorf("%d manifests and blobs and %d lists of referrers were fetched, the catalog knows %d and %d",
				blobs, lists, held.Blobs, held.ReferrersLists)
		}
		return nil
	})
}

// idle fails while a node fetches, or has not published what it fetched. Walks begin fills, on other nodes too, so all of
// them have to have ended first. That a catalog knows a blob would not do: a manifest that names it is enough for that.
func idle(ctx context.Context, running []*Node) error {
	for _, gauge := range []string{"ocistern_prefetch_running", "ocistern_fills_running"} {
		for _, node := range running {
			value, err := node.Gauge(ctx, gauge)
			if err != nil {
				return err
			}
			if value != 0 {
				return fmt.Errorf("%s of %s is %v", gauge, node.Name, value)
			}
		}
	}
	return nil
}

func sameCatalog(ctx context.Context, running []*Node) (Catalog, error) {
	if len(running) == 0 {
		return Catalog{}, errors.New("no node runs")
	}
	differ, lines := false, ""
	var first Catalog
	for i, node := range running {
		held, err := node.Catalog(ctx)
		if err != nil {
			return Catalog{}, err
		}
		if i == 0 {
			first = held
		}
		differ = differ || held != first
		lines += fmt.Sprintf("\n  %s: %s", node.Name, held)
	}
	if differ {
		return Catalog{}, errors.New("the nodes hold different catalogs:" + lines)
	}
	return first, nil
}
