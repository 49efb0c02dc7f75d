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
)

// layerRepository is where the layer lies.
const layerRepository = "layer/app"

// layers measures a large layer. Each round has a cluster of its own, since the layer is the same. The first one does not count:
// a machine may be slow to give out memory, where files lie too, for the first time.
func (b *bench) layers(ctx context.Context, l link) (err error) {
	from, err := startRegistry(l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.close()) }()
	layer, err := b.pushLayer(ctx, from)
	if err != nil {
		return err
	}
	proxy, err := startProxy(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, proxy.close()) }()
	var took times
	for round := range 1 + b.layerRounds {
		b.progress("%slayer of %d bytes: round %d of %d", l.name, layer.Size, round, b.layerRounds)
		slow, err := readDirectly(ctx, from.host, layer)
		if err != nil {
			return fmt.Errorf("directly: %w", err)
		}
		proxied, err := readDirectly(ctx, proxy.host, layer)
		if err != nil {
			return fmt.Errorf("through a proxy: %w", err)
		}
		quick, err := b.throughCaches(ctx, from, layer)
		if err != nil {
			return fmt.Errorf("through Ocistern: %w", err)
		}
		if round > 0 {
			took.add(times{ours: []time.Duration{quick}, direct: []time.Duration{slow}, proxy: []time.Duration{proxied}})
		}
	}
	took.print(&b.table, l.name+"layer", figure.AtMost(l.single))
	return nil
}

func readDirectly(ctx context.Context, host string, layer ocispec.Descriptor) (time.Duration, error) {
	from, err := direct(host, layerRepository)
	if err != nil {
		return 0, err
	}
	return timed(func() error { return read(ctx, verifying{from}, layer) })
}

func (b *bench) pushLayer(ctx context.Context, from registry) (ocispec.Descriptor, error) {
	noise := make([]byte, b.layerBytes)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise) // never fails (math/rand/v2.ChaCha8.Read)
	layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(noise), Size: int64(len(noise))}
	to, err := direct(from.host, layerRepository)
	if err == nil {
		err = to.Push(ctx, layer, bytes.NewReader(noise))
	}
	return layer, err
}

func (b *bench) throughCaches(
	ctx context.Context, from registry, layer ocispec.Descriptor,
) (took time.Duration, err error) {
	through, err := b.startCaches(ctx, from, "")
	defer func() { err = errors.Join(err, through.close()) }()
	if err != nil {
		return 0, err
	}
	cached, err := through.repository(layerRepository)
	if err != nil {
		return 0, err
	}
	if err := through.rest(ctx); err != nil {
		return 0, err
	}
	return timed(func() error { return read(ctx, cached, layer) })
}

// read reads content to its end.
func read(ctx context.Context, from content.Fetcher, of ocispec.Descriptor) (err error) {
	body, err := from.Fetch(ctx, of)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	n, err := io.Copy(io.Discard, body)
	if err == nil && n != of.Size {
		err = fmt.Errorf("%d of %d bytes came", n, of.Size)
	}
	return err
}

// verifying verifies what is fetched, as a verifier must that asks the registry itself. Ocistern's client library does it.
type verifying struct{ content.Fetcher }

// Fetch implements content.Fetcher.
func (v verifying) Fetch(ctx context.Context, of ocispec.Descriptor) (io.ReadCloser, error) {
	body, err := v.Fetcher.Fetch(ctx, of)
	if err != nil {
		return nil, err
	}
	return &verifiedBody{content.NewVerifyReader(body, of), body}, nil
}

// verifiedBody ends without an error only when all of it was right.
type verifiedBody struct {
	*content.VerifyReader
	io.Closer
}

// Read implements io.Reader.
func (b *verifiedBody) Read(p []byte) (int, error) {
	n, err := b.VerifyReader.Read(p)
	if errors.Is(err, io.EOF) {
		if wrong := b.Verify(); wrong != nil {
			err = wrong
		}
	}
	return n, err
}
