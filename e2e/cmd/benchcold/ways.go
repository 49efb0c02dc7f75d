package main

import (
	"context"
	"fmt"
	"time"

	"oras.land/oras-go/v2"

	"github.com/ocistern/ocistern/e2e/figure"
)

// scene is a registry and the ways to it.
type scene struct {
	registry registry
	proxy    *process
	caches   *caches
}

// times are how long the same took in each way, round by round. known is through Ocistern when it was asked for before.
type times struct{ ours, known, direct, proxy []time.Duration }

func (t *times) add(other times) {
	t.ours = append(t.ours, other.ours...)
	t.known = append(t.known, other.known...)
	t.direct = append(t.direct, other.direct...)
	t.proxy = append(t.proxy, other.proxy...)
}

// print prints the medians beside that of the direct way: ours, when the nodes know it, and what a proxy that does nothing makes
// of it.
func (t *times) print(table *figure.Table, name string, target figure.Target) {
	for _, way := range []struct {
		name   string
		took   []time.Duration
		target figure.Target
	}{{name, t.ours, target}, {name + "-known", t.known, figure.Target{}}, {name + "-via-proxy", t.proxy, figure.Target{}}} {
		if len(way.took) > 0 {
			table.Print(figure.Figure{
				Name: way.name, Unit: figure.Seconds, Target: way.target,
				Ours: figure.Percentile(way.took, 50).Seconds(), Peer: figure.Percentile(t.direct, 50).Seconds(),
			})
		}
	}
}

// inTurn reads each image in all ways, one after the other. The first rounds warm connections up and do not count.
func (b *bench) inTurn(ctx context.Context, s scene, under string, seed int, read way) (took times, err error) {
	failed, rounds := 0, b.warming+b.rounds
	for round := 0; round < rounds; round++ {
		of, err := b.push(ctx, s.registry, fmt.Sprintf("%s/app-%d", under, round), seed+round, b.signers)
		if err != nil {
			return took, err
		}
		one, err := s.once(ctx, of, read)
		if err != nil { // an election, on a busy machine
			if failed++; failed == maxFailed {
				return took, err
			}
			rounds++
			b.progress("a round failed, another one takes its place: %v", err)
			continue
		}
		if round >= b.warming {
			took.add(one)
		}
	}
	return took, nil
}

// maxFailed is how many rounds may fail before there is no figure.
const maxFailed = 3

// once reads an image in all ways, each when the others are at rest.
func (s scene) once(ctx context.Context, of image, read way) (took times, err error) {
	if err := s.caches.renew(ctx); err != nil {
		return took, err
	}
	self, err := direct(s.registry.host, of.repository)
	if err != nil {
		return took, err
	}
	proxied, err := direct(s.proxy.host, of.repository)
	if err != nil {
		return took, err
	}
	cached, err := s.caches.repository(of.repository)
	if err != nil {
		return took, err
	}
	for _, way := range []struct {
		name string
		from oras.GraphTarget
		host string
		took *[]time.Duration
	}{
		{"directly", self, s.registry.host, &took.direct},
		{"through a proxy", proxied, s.proxy.host, &took.proxy},
		{"through Ocistern", cached, upstreamName, &took.ours},
		{"through Ocistern, again", cached, upstreamName, &took.known},
	} {
		if err := s.caches.rest(ctx); err != nil {
			return took, err
		}
		one, err := timed(func() error { return read(ctx, way.from, way.host, of) })
		if err != nil {
			return took, fmt.Errorf("%s: %w", way.name, err)
		}
		*way.took = append(*way.took, one)
	}
	return took, nil
}
