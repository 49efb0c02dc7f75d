package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"

	"github.com/ocistern/ocistern/e2e/figure"
	"github.com/ocistern/ocistern/e2e/upstream"
)

// layerRepository is where the layer lies.
const layerRepository = "layer/app"

// layers measures a large layer. Each round has a cluster of its own, since the layer is the same.
func (b *bench) layers(ctx context.Context, l link) (err error) {
	registry, err := startRegistry(l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registry.Close()) }()
	layer, err := b.pushLayer(ctx, registry)
	if err != nil {
		return err
	}
	var ours, directly []time.Duration
	for round := range b.layerRounds {
		b.progress("%slayer of %d bytes: round %d of %d", l.name, layer.Size, round+1, b.layerRounds)
		self, err := direct(registry, layerRepository)
		if err != nil {
			return err
		}
		slow, err := timed(func() error { return read(ctx, self, layer) })
		if err != nil {
			return fmt.Errorf("directly: %w", err)
		}
		quick, err := b.throughCaches(ctx, registry, round, layer)
		if err != nil {
			return fmt.Errorf("through Ocistern: %w", err)
		}
		ours, directly = append(ours, quick), append(directly, slow)
	}
	b.table.Print(figure.Figure{
		Name: l.name + "layer", Unit: figure.Seconds, Target: figure.AtMost(l.single),
		Ours: figure.Percentile(ours, 50).Seconds(), Peer: figure.Percentile(directly, 50).Seconds(),
	})
	return nil
}

func (b *bench) pushLayer(ctx context.Context, registry *upstream.Registry) (ocispec.Descriptor, error) {
	noise := make([]byte, b.layerBytes)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise) // never fails (math/rand/v2.ChaCha8.Read)
	layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(noise), Size: int64(len(noise))}
	to, err := direct(registry, layerRepository)
	if err == nil {
		err = to.Push(ctx, layer, bytes.NewReader(noise))
	}
	return layer, err
}

func (b *bench) throughCaches(
	ctx context.Context, registry *upstream.Registry, round int, layer ocispec.Descriptor,
) (took time.Duration, err error) {
	through, err := b.startCaches(ctx, registry, "")
	defer func() { err = errors.Join(err, through.close()) }()
	if err != nil {
		return 0, err
	}
	cached, err := through.repository(round, layerRepository)
	if err != nil {
		return 0, err
	}
	return timed(func() error { return read(ctx, cached, layer) })
}

// read reads content to its end and verifies it, as whoever uses it would.
func read(ctx context.Context, from content.Fetcher, of ocispec.Descriptor) (err error) {
	body, err := from.Fetch(ctx, of)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	verified := content.NewVerifyReader(body, of)
	if _, err := io.Copy(io.Discard, verified); err != nil {
		return err
	}
	return verified.Verify()
}
