// Package client reads OCI artifacts through an Ocistern cluster: tags, manifests, referrers and blobs, verified
// against their digests on arrival whatever node sent them.
//
// A Client knows several nodes and needs one of them alive. It remembers the highest catalog index it has seen and
// never accepts an older answer, so time does not run backwards for one client even when it changes nodes. A
// Repository takes the place of an oras-go remote.Repository for reading: oras.Copy, registry.Referrers and notation-go
// work on it unchanged. This version does not push.
//
// The package is not a registry client: it never talks to an upstream registry, and nothing here needs credentials for
// one.
package client

import (
	"errors"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// Client is one session with a cluster. It is safe for concurrent use; use one for a whole process. Close it when done.
type Client struct {
	options options
	pool    *pool
	session session
}

// New returns a client of the nodes at endpoints (host:port of their gRPC addresses, in any order; one DNS name that
// stands for all nodes does as well). It dials nothing: a connection is made when the first call needs it. It returns
// ErrConfigInvalid for a malformed endpoint or option.
func New(endpoints []string, opts ...Option) (*Client, error) {
	chosen := defaultOptions()
	for _, option := range opts {
		if err := option(&chosen); err != nil {
			return nil, err
		}
	}
	if len(endpoints) == 0 {
		return nil, errdef.New(errdef.ConfigInvalid, "no endpoint").WithRemedy("name the gRPC address of a node, host:port")
	}
	nodes := make([]*endpoint, 0, len(endpoints))
	for _, address := range endpoints {
		node, err := dial(address, chosen)
		if err != nil {
			return nil, errors.Join(err, closeAll(nodes))
		}
		nodes = append(nodes, node)
	}
	c := &Client{options: chosen, pool: newPool(nodes)}
	for _, node := range nodes {
		node.known = c.gatherAt(node)
	}
	return c, nil
}

// Repository returns a repository by name: `<registry host>/<path>` for a mirrored one, such as ghcr.io/org/app. It
// asks nobody; whether the repository exists shows when it is read. It returns ErrNameInvalid for a malformed name.
func (c *Client) Repository(name string) (*Repository, error) {
	parsed, err := reference.ParseRepository(name)
	if err != nil {
		return nil, err
	}
	return &Repository{client: c, name: parsed}, nil
}

// Open splits a full reference (REPOSITORY:TAG or REPOSITORY@DIGEST) into its repository and what to ask of it.
func (c *Client) Open(ref string) (repository *Repository, tagOrDigest string, err error) {
	parsed, err := reference.Parse(ref)
	if err != nil {
		return nil, "", err
	}
	return &Repository{client: c, name: parsed.Repository}, tagOrDigestOf(parsed), nil
}

// Endpoints returns the addresses given to New.
func (c *Client) Endpoints() []string {
	addresses := make([]string, 0, len(c.pool.endpoints))
	for _, node := range c.pool.endpoints {
		addresses = append(addresses, node.address)
	}
	return addresses
}

// CatalogIndex returns the highest catalog index this client has seen; zero before the first answer.
func (c *Client) CatalogIndex() uint64 { return c.session.seen() }

// Close ends all connections. Calls in flight fail.
func (c *Client) Close() error {
	err := closeAll(c.pool.endpoints)
	c.pool.close()
	return err
}

func closeAll(nodes []*endpoint) error {
	var failures []error
	for _, node := range nodes {
		failures = append(failures, node.conn.Close())
	}
	return errors.Join(failures...)
}
