package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/e2e/nodes"
	"github.com/ocistern/ocistern/e2e/upstream"
	"github.com/ocistern/ocistern/internal/policy"
)

// source is what a verifier reads of one repository.
type source interface {
	content.Fetcher
	content.Resolver
	content.PredecessorFinder
}

// replica is one of the verifier: a source for each image.
type replica []source

// system is a way to bring content to replicas, from a registry of its own.
type system struct {
	name     string
	registry *upstream.Registry
	// open starts what is needed. What it returns closes it, also when it fails.
	open func(ctx context.Context, from *upstream.Registry) ([]replica, func() error, error)
}

func (b *bench) systems() []*system {
	return []*system{
		{name: "direct", open: b.openDirect},
		{name: "own cache, 10 s", open: b.openCached},
		{name: "Ocistern", open: b.openOcistern},
	}
}

// ownCacheLife is the time to live of the caches that replicas have of their own.
const ownCacheLife = 10 * time.Second

func (b *bench) openDirect(_ context.Context, registry *upstream.Registry) ([]replica, func() error, error) {
	replicas := make([]replica, b.replicas)
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one, by its documentation
	transport.MaxIdleConnsPerHost = 256
	shared := &http.Client{Transport: &retry.Transport{Base: transport, Policy: b.retries}}
	closeAll := func() error { transport.CloseIdleConnections(); return nil }
	for i := range replicas {
		for _, of := range b.images {
			from, err := remote.NewRepository(registry.Host() + "/" + of.repository)
			if err != nil {
				return nil, closeAll, err
			}
			from.PlainHTTP, from.Client = true, shared
			replicas[i] = append(replicas[i], from)
		}
	}
	return replicas, closeAll, nil
}

// retries are those of oras-go, in compressed time.
func (b *bench) retries() retry.Policy {
	return &retry.GenericPolicy{
		Retryable: retry.DefaultPredicate, Backoff: retry.ExponentialBackoff(b.clock.here(250*time.Millisecond), 2, 0.1),
		MinWait: b.clock.here(200 * time.Millisecond), MaxWait: b.clock.here(3 * time.Second), MaxRetry: 5,
	}
}

func (b *bench) openCached(ctx context.Context, registry *upstream.Registry) ([]replica, func() error, error) {
	replicas, closeAll, err := b.openDirect(ctx, registry)
	for _, r := range replicas {
		for i := range r {
			r[i] = newCached(r[i], b.clock.here(ownCacheLife))
		}
	}
	return replicas, closeAll, err
}

// nodeCount is the number of Ocistern nodes.
const nodeCount = 3

func (b *bench) openOcistern(ctx context.Context, registry *upstream.Registry) ([]replica, func() error, error) {
	dir, err := os.MkdirTemp(b.dir, "nodes-")
	if err != nil {
		return nil, func() error { return nil }, err
	}
	closers := []func() error{func() error { return os.RemoveAll(dir) }}
	closeAll := func() error {
		var failures []error
		for i := range closers {
			failures = append(failures, closers[len(closers)-1-i]())
		}
		return errors.Join(failures...)
	}
	cluster, err := nodes.Prepare(nodes.Options{
		Binary: b.ocistern, Dir: dir, Count: nodeCount, Settings: b.policies(),
		Upstreams: []nodes.Upstream{{Name: upstreamName, URL: registry.URL()}},
	})
	if err != nil {
		return nil, closeAll, err
	}
	closers = append(closers, cluster.Close)
	starting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := cluster.Start(starting); err != nil {
		return nil, closeAll, err
	}
	replicas := make([]replica, b.replicas)
	for i := range replicas {
		opened, err := client.New(cluster.Endpoints())
		if err != nil {
			return nil, closeAll, err
		}
		closers = append(closers, opened.Close)
		for _, of := range b.images {
			from, err := opened.Repository(upstreamName + "/" + of.repository)
			if err != nil {
				return nil, closeAll, err
			}
			replicas[i] = append(replicas[i], from)
		}
	}
	return replicas, closeAll, nil
}

// policies are the default ones, in compressed time.
func (b *bench) policies() string {
	p := policy.Default()
	return fmt.Sprintf("policies:\n  - {match: %s/**, fresh-for: %s, revalidate-for: %s, stale-for: %s, absent-for: %s, "+
		"referrers-fresh-for: %s}", upstreamName, b.clock.here(p.FreshFor), b.clock.here(p.RevalidateFor),
		b.clock.here(p.StaleFor), b.clock.here(p.AbsentFor), b.clock.here(p.ReferrersFreshFor))
}
