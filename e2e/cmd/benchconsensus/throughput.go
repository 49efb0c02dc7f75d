package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ocistern/ocistern/e2e/figure"
)

// system is one of the two that are compared.
type system interface {
	// connect opens a number of gRPC connections to the leader, or for reads to a follower.
	connect(ctx context.Context, connections int, onFollower bool) (connection, error)
	// processes returns the ids of the nodes' processes.
	processes() []int
}

// connection lets any number of clients, numbered from 0, write and read.
type connection interface {
	// write returns once the value is committed.
	write(ctx context.Context, client, key int) error
	// read is linearizable, and fails unless it finds what was written.
	read(ctx context.Context, client, key int) error
	close() error
}

// commits measures how many values both systems commit.
func (b *bench) commits(ctx context.Context) error {
	for _, c := range []struct {
		clients int
		target  figure.Target
	}{{1, figure.AtLeast(1)}, {64, figure.AtLeast(2)}, {256, figure.AtLeast(2)}} {
		name := fmt.Sprintf("commits-%d-clients", c.clients)
		if err := b.compare(ctx, name, c.clients, c.target, false, connection.write); err != nil {
			return err
		}
	}
	return nil
}

// reads measures linearizable reads, first of all on the leader, then on a follower.
func (b *bench) reads(ctx context.Context) error {
	for _, s := range []system{b.ours, b.peer} {
		if err := fill(ctx, s); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		clients    int
		target     figure.Target
		onFollower bool
		name       string
	}{
		{1, figure.Target{}, false, "reads-1-client"}, {64, figure.AtLeast(2), false, "reads-64-clients"},
		{1, figure.Target{}, true, "reads-follower-1-client"}, {64, figure.AtLeast(2), true, "reads-follower-64-clients"},
	} {
		if err := b.compare(ctx, c.name, c.clients, c.target, c.onFollower, connection.read); err != nil {
			return err
		}
	}
	return nil
}

// action is connection.write or connection.read.
type action func(c connection, ctx context.Context, client, key int) error

// compare lets both systems work in turn, round after round, and prints the medians.
func (b *bench) compare(
	ctx context.Context, name string, clients int, wanted figure.Target, onFollower bool,
	do action,
) error {
	if !b.match.MatchString(name) {
		return nil
	}
	var rates [2][]float64
	for round := range b.rounds {
		for i, s := range []system{b.ours, b.peer} {
			rate, cost, err := b.roundAgain(ctx, s, clients, onFollower, do)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", name, systemNames[i], err)
			}
			rates[i] = append(rates[i], rate)
			b.progress("%s, round %d of %d, %s: %.0f/s, processor time %s", name, round+1, b.rounds, systemNames[i], rate, cost)
		}
	}
	b.table.Print(figure.Figure{
		Name: name, Unit: figure.PerSecond, Ours: figure.Median(rates[0]), Peer: figure.Median(rates[1]), Target: wanted,
	})
	return nil
}

var systemNames = [2]string{"ours", "peer"}

// roundAgain repeats a round that fails, a few times, each twice as long: on a busy machine leaders change, and nothing may be
// done in a short one. It returns how many operations were done in a second, and what each of them cost.
func (b *bench) roundAgain(
	ctx context.Context, s system, clients int, onFollower bool, do action,
) (rate float64, cost string, err error) {
	for attempt := range attempts {
		length, done := b.length<<attempt, 0
		if done, cost, err = b.round(ctx, s, clients, onFollower, do, length); err == nil || ctx.Err() != nil {
			return float64(done) / length.Seconds(), cost, err
		}
		b.progress("a round failed, trying again: %v", err)
	}
	return 0, "", err
}

// attempts bounds how often a measurement is tried.
const attempts = 3

// round returns how many operations were done, and what each of them cost.
func (b *bench) round(
	ctx context.Context, s system, clients int, onFollower bool, do action, length time.Duration,
) (done int, cost string, err error) {
	c, err := s.connect(ctx, min(clients, connections), onFollower)
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	operate := func(ctx context.Context, client int) error { return do(c, ctx, client, rand.IntN(keys)) }
	if _, err := drive(ctx, clients, max(length/5, time.Second), operate); err != nil { // to warm up
		return 0, "", err
	}
	before, err := effortSince(effort{}, s.processes())
	if err != nil {
		return 0, "", err
	}
	samples, err := drive(ctx, clients, length, operate)
	if err != nil {
		return 0, "", err
	}
	spent, err := effortSince(before, s.processes())
	return len(samples), spent.per(len(samples)), err
}

// fill writes each key once, so that all can be read.
func fill(ctx context.Context, s system) error {
	c, err := s.connect(ctx, connections, false)
	if err != nil {
		return err
	}
	const writers = 64
	failures := make(chan error, writers)
	ctx, cancel := context.WithTimeout(ctx, fillTime)
	defer cancel()
	for writer := range writers {
		go func() {
			var err error
			for key := writer; key < keys && err == nil; key += writers {
				err = c.write(ctx, writer, key)
			}
			failures <- err
		}()
	}
	var all []error
	for range writers {
		all = append(all, <-failures)
	}
	return errors.Join(append(all, c.close())...)
}

const (
	keys        = 10_000 // that are written and read in random order
	connections = 8      // of both systems, for more than that many clients
	fillTime    = 2 * time.Minute
)
