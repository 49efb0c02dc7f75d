package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"

	"github.com/ocistern/ocistern/e2e/figure"
	"github.com/ocistern/ocistern/e2e/signed"
)

// settings of the nodes: some repositories are there to see what prefetching does, and what revalidating costs.
const settings = `policies:
  - {match: up.test/*/*, fresh-for: 1h, referrers-fresh-for: 1h}
  - {match: up.test/without-prefetch/*, prefetch-depth: 0}
  - {match: up.test/revalidated/*, fresh-for: 0s, revalidate-for: 1h, prefetch-depth: 0}`

// image is what one round reads: unlike those of all others.
type image struct {
	repository string
	manifest   ocispec.Descriptor
}

func (b *bench) push(
	ctx context.Context, from registry, repository string, seed int, signers []*signed.Signer,
) (image, error) {
	to, err := direct(from.host, repository)
	if err != nil {
		return image{}, err
	}
	pushed, err := signed.Push(ctx, to, signed.Image{Tag: tag, Layers: []int{1000}, Seed: uint64(seed), Signers: signers})
	return image{repository, pushed}, err
}

const tag = "v1"

// way is one way to read, timed.
type way func(ctx context.Context, from oras.GraphTarget, host string, of image) error

func (b *bench) ways() map[string]way {
	return map[string]way{
		"verification": func(ctx context.Context, from oras.GraphTarget, host string, of image) error {
			_, err := b.verifier.Verify(ctx, from, host+"/"+of.repository+":"+tag)
			return err
		},
		"manifest": func(ctx context.Context, from oras.GraphTarget, _ string, of image) error {
			_, err := content.FetchAll(ctx, from, of.manifest)
			return err
		},
		"manifest-by-tag": func(ctx context.Context, from oras.GraphTarget, _ string, _ image) error {
			return fetchTag(ctx, from)
		},
	}
}

// small measures verifications, manifests, and revalidation in the background.
func (b *bench) small(ctx context.Context, l link) (err error) {
	from, err := startRegistry(l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.close()) }()
	proxy, err := startProxy(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, proxy.close()) }()
	through, err := b.startCaches(ctx, from, settings)
	defer func() { err = errors.Join(err, through.close()) }()
	if err != nil {
		return err
	}
	for number, c := range []struct {
		name, way, under string
		target           figure.Target
	}{
		{"verification", "verification", "verified", figure.AtMost(l.verification)},
		{"verification-without-prefetch", "verification", "without-prefetch", figure.Target{}},
		{"manifest", "manifest", "manifest", figure.AtMost(l.single)},
		{"manifest-by-tag", "manifest-by-tag", "by-tag", figure.AtMost(l.single)},
	} {
		if !b.wanted(l.name + c.name) {
			continue
		}
		b.progress("%s%s: %d rounds", l.name, c.name, b.rounds)
		// Equal seeds make equal images: what one figure has brought to the nodes' disks must not help another one.
		took, err := b.inTurn(ctx, scene{from, proxy, through}, c.under, number*seedsOfFigure, b.ways()[c.way])
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		took.print(&b.table, l.name+c.name, c.target)
	}
	if name := l.name + "answer-while-revalidating"; b.wanted(name) {
		return b.revalidate(ctx, name, from, through)
	}
	return nil
}

// seedsOfFigure is more than a figure has rounds.
const seedsOfFigure = 10_000

// revalidate compares answers that are renewed in the background with answers that are fresh: nobody should notice.
func (b *bench) revalidate(ctx context.Context, name string, from registry, through *caches) error {
	took := map[string][]time.Duration{}
	for _, under := range []string{"fresh", "revalidated"} { // one after the other: else both bear the background
		of, err := b.push(ctx, from, under+"/app", 1, nil)
		if err != nil {
			return err
		}
		repository, err := through.repository(of.repository)
		if err != nil {
			return err
		}
		before, err := from.requests()
		if err != nil {
			return err
		}
		if took[under], err = b.answers(ctx, repository); err != nil {
			return fmt.Errorf("%s: %w", under, err)
		}
		after, err := from.requests()
		if err != nil {
			return err
		}
		b.progress("%s: %s: the registry was asked %d times for %d answers", name, under, after-before, b.revalidations)
	}
	b.table.Print(figure.Figure{
		Name: name, Unit: figure.Seconds, Target: figure.AtMost(revalidatingTarget),
		Ours: figure.Percentile(took["revalidated"], 50).Seconds(), Peer: figure.Percentile(took["fresh"], 50).Seconds(),
	})
	return nil
}

// pace is how often one tag is asked for: seldom enough that what an answer has begun in the background ends before the next one,
// since here the background of three nodes has the processors of the callers.
const pace = 25 * time.Millisecond

// answers asks for the tag again and again. The first answer, a fill, does not count.
func (b *bench) answers(ctx context.Context, from oras.ReadOnlyTarget) (took []time.Duration, err error) {
	next := time.NewTicker(pace)
	defer next.Stop()
	for range 1 + b.revalidations {
		one, err := timed(func() error { _, err := from.Resolve(ctx, tag); return err })
		if err != nil {
			return nil, err
		}
		took = append(took, one)
		select {
		case <-next.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return took[1:], nil
}

// revalidatingTarget is 1, and room for the noise of the machine.
const revalidatingTarget = 1.15

// fetchTag reads a manifest by its tag in one request, where the target can.
func fetchTag(ctx context.Context, from oras.GraphTarget) error {
	_, body, err := oras.FetchBytes(ctx, from, tag, oras.DefaultFetchBytesOptions)
	if err == nil && len(body) == 0 {
		err = errors.New("the manifest is empty")
	}
	return err
}

func timed(call func() error) (time.Duration, error) {
	begin := time.Now()
	err := call()
	return time.Since(begin), err
}
