package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"time"

	"oras.land/oras-go/v2/registry/remote"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/e2e/nodes"
)

const (
	nodeCount    = 3
	upstreamName = "up.test"
	startTime    = time.Minute
)

// direct returns a repository of the registry itself, over connections that are kept.
func direct(from *registry, repository string) (*remote.Repository, error) {
	opened, err := remote.NewRepository(from.host + "/" + repository)
	if err != nil {
		return nil, err
	}
	opened.PlainHTTP, opened.Client = true, http.DefaultClient
	return opened, nil
}

// caches are three nodes and a client of each.
type caches struct {
	cluster *nodes.Cluster
	clients []*client.Client
	dir     string
}

// startCaches starts three nodes with empty disks. Close what it returns, when it fails too.
func (b *bench) startCaches(ctx context.Context, from *registry, settings string) (*caches, error) {
	c := &caches{}
	var err error
	if c.dir, err = os.MkdirTemp(b.dir, "nodes-"); err != nil {
		return c, err
	}
	c.cluster, err = nodes.Prepare(nodes.Options{
		Binary: b.ocistern, Dir: c.dir, Count: nodeCount, Settings: settings,
		Upstreams: []nodes.Upstream{{Name: upstreamName, URL: from.url()}},
	})
	if err != nil {
		return c, err
	}
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := c.cluster.Start(starting); err != nil {
		return c, err
	}
	for _, node := range c.cluster.Nodes() {
		opened, err := client.New([]string{node.GRPC()})
		if err != nil {
			return c, err
		}
		c.clients = append(c.clients, opened)
	}
	return c, nil
}

// repository is one of the registry, read through the node whose turn it is.
func (c *caches) repository(round int, name string) (*client.Repository, error) {
	return c.clients[round%len(c.clients)].Repository(upstreamName + "/" + name)
}

func (c *caches) close() error {
	var failures []error
	for _, opened := range c.clients {
		failures = append(failures, opened.Close())
	}
	if c.cluster != nil {
		failures = append(failures, c.cluster.Close())
	}
	if c.dir != "" {
		failures = append(failures, os.RemoveAll(c.dir))
	}
	return errors.Join(failures...)
}
