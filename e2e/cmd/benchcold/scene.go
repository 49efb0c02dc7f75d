package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
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

// direct returns a repository of the registry at a host, or what a proxy makes of it, over connections that are kept.
func direct(host, repository string) (*remote.Repository, error) {
	opened, err := remote.NewRepository(host + "/" + repository)
	if err != nil {
		return nil, err
	}
	opened.PlainHTTP, opened.Client = true, http.DefaultClient
	return opened, nil
}

// caches are three nodes and a client of them all.
type caches struct {
	cluster *nodes.Cluster
	client  *client.Client
	dir     string
}

// startCaches starts three nodes with empty disks. Close what it returns, when it fails too.
func (b *bench) startCaches(ctx context.Context, from registry, settings string) (*caches, error) {
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
	return c, c.renew(ctx)
}

// renew takes another client, which is at another node as often as not. It has its connections and knows whom it talks to, as one
// of a verifier that has run for a while.
func (c *caches) renew(ctx context.Context) error {
	var endpoints []string
	for _, node := range c.cluster.Nodes() {
		endpoints = append(endpoints, node.GRPC())
	}
	opened, err := client.New(endpoints)
	if err != nil {
		return err
	}
	if c.client != nil {
		err = c.client.Close()
	}
	c.client = opened
	for _, node := range opened.StatusAll(ctx) {
		err = errors.Join(err, node.Err)
	}
	return err
}

// resting is how long nothing must have changed before nodes are at rest: longer than they gather what they hold before they
// tell each other.
const resting = 150 * time.Millisecond

// asleep is how long nobody is asked anything before something is measured, so that each process is found as idle as the others.
const asleep = 20 * time.Millisecond

// rest waits until the nodes have done what was begun. Here they share the processors with whoever is measured.
func (c *caches) rest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	look := time.NewTicker(resting / 10)
	defer look.Stop()
	var at uint64
	for since := time.Now(); time.Since(since) < resting; {
		index, err := c.index(ctx)
		if index == 0 || index != at {
			at, since = index, time.Now()
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("the nodes do not come to rest: %w", errors.Join(ctx.Err(), err))
		}
	}
	<-time.After(asleep)
	return nil
}

// index returns the catalog index of all nodes; zero while they differ, or one does not say.
func (c *caches) index(ctx context.Context) (uint64, error) {
	var indexes []uint64
	for _, node := range c.client.StatusAll(ctx) {
		if node.Err != nil {
			return 0, node.Err
		}
		indexes = append(indexes, node.Status.Catalog.Index)
	}
	if slices.Min(indexes) != slices.Max(indexes) {
		return 0, nil
	}
	return indexes[0], nil
}

// repository is one of the registry, read through the nodes.
func (c *caches) repository(name string) (*client.Repository, error) {
	return c.client.Repository(upstreamName + "/" + name)
}

func (c *caches) close() error {
	var failures []error
	if c.client != nil {
		failures = append(failures, c.client.Close())
	}
	if c.cluster != nil {
		failures = append(failures, c.cluster.Close())
	}
	if c.dir != "" {
		failures = append(failures, os.RemoveAll(c.dir))
	}
	return errors.Join(failures...)
}
