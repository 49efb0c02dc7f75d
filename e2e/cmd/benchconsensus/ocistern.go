package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/e2e/nodes"
	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/rpc"
)

// repository of the tags that are written and read: one that looks mirrored, so that a tag needs no manifest.
const repository = "bench.test/app"

// ocistern is three `ocistern serve` processes.
type ocistern struct {
	cluster   *nodes.Cluster
	clusterID string
}

// startOcistern starts three nodes and waits until they are ready. Close what it returns, when it fails too.
func startOcistern(ctx context.Context, binary, dir string) (*ocistern, error) {
	o := &ocistern{}
	var err error
	if o.cluster, err = nodes.Prepare(nodes.Options{Binary: binary, Dir: dir, Count: nodeCount}); err != nil {
		return o, err
	}
	if err := o.cluster.Start(ctx); err != nil {
		return o, err
	}
	leader, err := o.cluster.Leader(ctx)
	if err != nil {
		return o, err
	}
	status, err := leader.Status(ctx, false)
	if err != nil {
		return o, err
	}
	o.clusterID = status.GetClusterId()
	return o, nil
}

func (o *ocistern) close() error {
	if o.cluster == nil {
		return nil
	}
	return o.cluster.Close()
}

// processes implements system.
func (o *ocistern) processes() []int {
	var ids []int
	for _, node := range o.cluster.Running() {
		ids = append(ids, node.PID())
	}
	return ids
}

// connect implements system.
func (o *ocistern) connect(ctx context.Context, connections int, onFollower bool) (connection, error) {
	return o.dial(ctx, connections, onFollower)
}

func (o *ocistern) dial(ctx context.Context, connections int, onFollower bool) (*ocisternConnection, error) {
	leader, err := o.cluster.Leader(ctx)
	if err != nil {
		return nil, err
	}
	read := leader
	for _, node := range o.cluster.Running() {
		if onFollower && node != leader {
			read = node
		}
	}
	status, err := leader.Status(ctx, false)
	if err != nil {
		return nil, err
	}
	c := &ocisternConnection{leader: leader.Peer()}
	c.seen.Store(status.GetCatalog().GetIndex())
	for range connections {
		reader, err := client.New([]string{read.GRPC()}, client.WithLinearizableReads())
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.readers = append(c.readers, reader)
		c.writers = append(c.writers, rpc.NewPeerClient(func() string { return o.clusterID }))
	}
	return c, nil
}

// ocisternConnection writes to the leader as other nodes do, and reads as users do.
type ocisternConnection struct {
	leader  string        // peer address
	seen    atomic.Uint64 // a catalog index, as old as the last write at most
	writers []*rpc.PeerClient
	readers []*client.Client
}

func (c *ocisternConnection) write(ctx context.Context, client, key int) error {
	return c.submit(ctx, client, observeTag(key, time.Now()))
}

// submit gives each command an id, so that it could be sent again, as nodes do.
func (c *ocisternConnection) submit(ctx context.Context, client int, command catalog.Command) error {
	encoded, err := fsm.Encode(command)
	if err != nil {
		return err
	}
	request := fsm.Request{Command: encoded, Request: catalog.Request{Since: catalog.LogIndex(c.seen.Load())}}
	_, _ = rand.Read(request.ID[:]) // never fails (crypto/rand)
	index, err := c.writers[client%len(c.writers)].Apply(ctx, c.leader, request)
	if err == nil {
		c.seen.Store(uint64(index)) // about the latest will do
	}
	return err
}

func (c *ocisternConnection) read(ctx context.Context, client, key int) error {
	from, err := c.readers[client%len(c.readers)].Repository(repository)
	if err != nil {
		return err
	}
	found, err := from.Resolve(ctx, tagName(key))
	if err == nil && len(found.Annotations) == 0 {
		err = fmt.Errorf("tag %s was read without what was written", tagName(key))
	}
	return err
}

func (c *ocisternConnection) close() error {
	var failures []error
	for _, writer := range c.writers {
		failures = append(failures, writer.Close())
	}
	for _, reader := range c.readers {
		failures = append(failures, reader.Close())
	}
	return errors.Join(failures...)
}

// tagName is the tag, and etcd's key, of a number.
func tagName(key int) string { return fmt.Sprintf("key-%08d", key) }

// observeTag is the command with which a node records what an upstream said about a tag: one record of the catalog. Its
// encoding has valueBytes at least.
func observeTag(key int, now time.Time) catalog.Publish {
	return catalog.Publish{
		Tenant: reference.DefaultTenant, Repository: repository, Source: catalog.SourceUpstream, Time: now,
		Tags: []catalog.TagUpdate{{
			Name: reference.Tag(tagName(key)),
			Descriptor: ocispec.Descriptor{
				MediaType: ocispec.MediaTypeImageManifest, Size: 1024, Digest: digest.FromString(tagName(key)),
				Annotations: map[string]string{"padding": padding},
			},
			Freshness: catalog.Freshness{Observed: now, FreshUntil: now.Add(day), StaleUntil: now.Add(2 * day)},
		}},
	}
}

const (
	valueBytes = 512
	day        = 24 * time.Hour
)

var (
	payload = strings.Repeat("x", valueBytes) // of one key in etcd
	padding = strings.Repeat("x", 288)        // of one tag: its command has about the bytes of key and value, as a test holds
)
