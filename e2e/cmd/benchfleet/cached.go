package main

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
)

// cached is the cache that verifiers have today: each answer is kept for a time, in one replica, and failures are not.
type cached struct {
	inner source
	life  time.Duration

	mu    sync.Mutex // guards known
	known map[string]answer
}

type answer struct {
	value any
	until time.Time
}

func newCached(inner source, life time.Duration) *cached {
	return &cached{inner: inner, life: life, known: map[string]answer{}}
}

// Resolve implements source.
func (c *cached) Resolve(ctx context.Context, reference string) (ocispec.Descriptor, error) {
	return remember(c, "resolve "+reference, func() (ocispec.Descriptor, error) { return c.inner.Resolve(ctx, reference) })
}

// Predecessors implements source.
func (c *cached) Predecessors(ctx context.Context, node ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	return remember(c, "predecessors "+node.Digest.String(), func() ([]ocispec.Descriptor, error) { return c.inner.Predecessors(ctx, node) })
}

// Fetch implements source.
func (c *cached) Fetch(ctx context.Context, target ocispec.Descriptor) (io.ReadCloser, error) {
	body, err := remember(c, "fetch "+target.Digest.String(), func() ([]byte, error) { return content.FetchAll(ctx, c.inner, target) })
	return io.NopCloser(bytes.NewReader(body)), err
}

func remember[T any](c *cached, key string, ask func() (T, error)) (T, error) {
	c.mu.Lock()
	known, ok := c.known[key]
	c.mu.Unlock()
	if value, is := known.value.(T); ok && is && time.Now().Before(known.until) {
		return value, nil
	}
	value, err := ask()
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.known[key] = answer{value, time.Now().Add(c.life)}
	}
	return value, err
}
