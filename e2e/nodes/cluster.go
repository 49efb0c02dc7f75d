// Package nodes runs `ocistern serve` as real processes on loopback, kills and restarts them, and asks them how they
// are. Each node has its own configuration file, data directory and log file under one directory.
//
// It is not `ocistern dev`: nodes here can die one by one without the others being stopped. The e2e scripts and the
// demo use it.
package nodes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ocistern/ocistern/e2e/ports"
)

// pollEvery is how often a condition is looked at.
const pollEvery = 25 * time.Millisecond

// Upstream is a registry that the nodes may mirror.
type Upstream struct {
	// Name is the first segment of mirrored repositories, for example up.test.
	Name string
	// URL is scheme and host of the registry.
	URL string
}

// Options says what to prepare.
type Options struct {
	// Binary is the path of the ocistern binary.
	Binary string
	// Dir is an existing directory for configuration, data and logs.
	Dir string
	// Count is the number of nodes, all of which form the cluster.
	Count     int
	Upstreams []Upstream
	// Settings is more of each node's configuration, as YAML.
	Settings string
}

// Cluster is a set of nodes of one cluster. Its methods are not safe for concurrent use, those of its nodes neither,
// except where they say so.
type Cluster struct {
	options Options
	block   *ports.Block
	nodes   []*Node
}

// Prepare writes the configuration of all nodes and starts none.
func Prepare(options Options) (*Cluster, error) {
	block, err := ports.Reserve()
	if err != nil {
		return nil, err
	}
	c := &Cluster{options: options, block: block}
	for range options.Count {
		if _, err := c.Add(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	for _, node := range c.nodes { // now that all gossip addresses are known
		if err := c.Configure(node); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// Add prepares one more node with an empty disk, which joins the others when it is started.
func (c *Cluster) Add() (*Node, error) {
	var given [6]string
	for i := range given {
		port, err := c.block.Next()
		if err != nil {
			return nil, err
		}
		given[i] = ports.Address(port)
	}
	name := fmt.Sprintf("n%d", len(c.nodes)+1)
	node := &Node{
		Name: name, Binary: c.options.Binary, dir: filepath.Join(c.options.Dir, name),
		addresses: addresses{
			Registry: given[0], GRPC: given[1], Admin: given[2], Peer: given[3], Raft: given[4], Gossip: given[5],
		},
	}
	if err := os.MkdirAll(node.dir, 0o755); err != nil {
		return nil, fmt.Errorf("directory of %s: %w", name, err)
	}
	c.nodes = append(c.nodes, node)
	return node, c.Configure(node)
}

// Configure writes the configuration of a node anew; the node reads it when it starts.
func (c *Cluster) Configure(node *Node) error {
	var text strings.Builder
	a := node.addresses
	fmt.Fprintf(&text, "name: %s\ndata-dir: %s\nadvertise-host: 127.0.0.1\n", node.Name, node.DataDir())
	fmt.Fprintf(&text, "listen:\n  registry: %s\n  grpc: %s\n  admin: %s\n  peer: %s\n  raft: %s\n  gossip: %s\n",
		a.Registry, a.GRPC, a.Admin, a.Peer, a.Raft, a.Gossip)
	fmt.Fprintf(&text, "cluster:\n  expect: %d\n", c.options.Count)
	if node.FeatureLevel != 0 {
		fmt.Fprintf(&text, "  feature-level: %d\n", node.FeatureLevel)
	}
	text.WriteString("  join:\n")
	for _, other := range c.nodes {
		fmt.Fprintf(&text, "    - %s\n", other.addresses.Gossip)
	}
	if len(c.options.Upstreams) > 0 {
		text.WriteString("upstreams:\n")
	}
	for _, upstream := range c.options.Upstreams {
		fmt.Fprintf(&text, "  - name: %s\n    url: %s\n", upstream.Name, upstream.URL)
	}
	if c.options.Settings != "" {
		text.WriteString(c.options.Settings + "\n")
	}
	if err := os.WriteFile(node.ConfigPath(), []byte(text.String()), 0o644); err != nil {
		return fmt.Errorf("configuration of %s: %w", node.Name, err)
	}
	return nil
}

// Nodes returns all nodes in the order of their names.
func (c *Cluster) Nodes() []*Node { return slices.Clone(c.nodes) }

// Node returns a node by name.
func (c *Cluster) Node(name string) (*Node, error) {
	for _, node := range c.nodes {
		if node.Name == name {
			return node, nil
		}
	}
	return nil, fmt.Errorf("no node is named %q", name)
}

// Running returns the nodes whose processes run.
func (c *Cluster) Running() []*Node {
	return slices.DeleteFunc(c.Nodes(), func(node *Node) bool { return !node.Running() })
}

// Endpoints returns the gRPC addresses of all nodes, dead ones included: what a client is configured with.
func (c *Cluster) Endpoints() []string {
	var endpoints []string
	for _, node := range c.nodes {
		endpoints = append(endpoints, node.GRPC())
	}
	return endpoints
}

// Start starts all nodes that do not run and waits until each says that it may be asked.
func (c *Cluster) Start(ctx context.Context) error {
	for _, node := range c.nodes {
		if err := node.Start(); err != nil {
			return err
		}
	}
	for _, node := range c.nodes {
		if err := node.AwaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close kills all nodes and gives their ports back.
func (c *Cluster) Close() error {
	var failures []error
	for _, node := range c.Running() {
		failures = append(failures, node.Kill())
	}
	return errors.Join(append(failures, c.block.Release())...)
}

// Await looks at a condition again and again until it returns nil. When ctx ends first, it returns the last error that
// the condition returned before.
func Await(ctx context.Context, condition func(context.Context) error) error {
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	var last error
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // what failed because ctx ended tells nothing
			last = err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), last)
		}
	}
}
