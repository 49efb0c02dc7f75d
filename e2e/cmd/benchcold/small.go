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
	ctx context.Context, from *registry, repository string, seed int, signers []*signed.Signer,
) (image, error) {
	to, err := direct(from, repository)
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
		b.progress("%s%s: %d rounds", l.name, c.name, b.rounds)
		// Equal seeds make equal images: what one figure has brought to the nodes' disks must not help another one.
		ours, directly, err := b.inTurn(ctx, from, through, c.under, number*seedsOfFigure, b.ways()[c.way])
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		b.table.Print(figure.Figure{
			Name: l.name + c.name, Unit: figure.Seconds, Target: c.target,
			Ours: figure.Percentile(ours, 50).Seconds(), Peer: figure.Percentile(directly, 50).Seconds(),
		})
	}
	return b.revalidate(ctx, l, from, through)
}

// inTurn reads each image through a node and directly. The first rounds, one for each node, warm connections up and do not
// count.
func (b *bench) inTurn(
	ctx context.Context, from *registry, through *caches, under string, seed int, read way,
) (ours, directly []time.Duration, err error) {
	failed, rounds := 0, nodeCount+b.rounds
	for round := 0; round < rounds; round++ {
		of, err := b.push(ctx, from, fmt.Sprintf("%s/app-%d", under, round), seed+round, b.signers)
		if err != nil {
			return nil, nil, err
		}
		self, err := direct(from, of.repository)
		if err != nil {
			return nil, nil, err
		}
		cached, err := through.repository(round, of.repository)
		if err != nil {
			return nil, nil, err
		}
		slow, err := timed(func() error { return read(ctx, self, from.host, of) })
		if err != nil {
			return nil, nil, fmt.Errorf("directly: %w", err)
		}
		quick, err := timed(func() error { return read(ctx, cached, upstreamName, of) })
		if err != nil { // an election, on a busy machine
			if failed++; failed == maxFailed {
				return nil, nil, fmt.Errorf("through Ocistern: %w", err)
			}
			rounds++
			b.progress("a round failed, another one takes its place: %v", err)
			continue
		}
		if round >= nodeCount {
			ours, directly = append(ours, quick), append(directly, slow)
		}
	}
	return ours, directly, nil
}

// maxFailed is how many rounds may fail before there is no figure.
const maxFailed = 3

// seedsOfFigure is more than a figure has rounds.
const seedsOfFigure = 10_000

// revalidate compares answers that are renewed in the background with answers that are fresh: nobody should notice.
func (b *bench) revalidate(ctx context.Context, l link, from *registry, through *caches) error {
	took := map[string][]time.Duration{}
	for _, under := range []string{"fresh", "revalidated"} { // one after the other: else both bear the background
		of, err := b.push(ctx, from, under+"/app", 1, nil)
		if err != nil {
			return err
		}
		repository, err := through.repository(0, of.repository)
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
		b.progress("%s%s: the registry was asked %d times for %d answers", l.name, under, after-before, b.revalidations)
	}
	b.table.Print(figure.Figure{
		Name: l.name + "answer-while-revalidating", Unit: figure.Seconds, Target: figure.AtMost(revalidatingTarget),
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
