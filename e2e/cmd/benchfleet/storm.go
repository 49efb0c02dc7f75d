package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"

	"github.com/ocistern/ocistern/e2e/upstream"
)

// measured is what a storm of pods came to.
type measured struct {
	requests, throttled int
	timeouts, failures  int
	took                []time.Duration // in the fleet's time; a pod that timed out waited for the whole deadline
	first               error           // of the failures and timeouts
}

// storm admits all pods, evenly over the time. The registry is down for the middle third, or never.
func (b *bench) storm(ctx context.Context, s *system, down bool) (done measured, err error) {
	replicas, closeAll, err := s.open(ctx, s.registry)
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return measured{}, err
	}
	s.registry.Ledger.Reset()
	s.registry.Limit(upstream.Limit{Reads: b.reads, Window: b.clock.here(time.Minute)})
	defer s.registry.Limit(upstream.Limit{})

	outcomes := make([]outcome, b.pods)
	var ended atomic.Int64
	stopTelling := b.tell(s.name, &ended)
	defer stopTelling()
	var admissions sync.WaitGroup
	defer admissions.Wait() // before the replicas are closed
	begin := time.Now()
	for pod := range outcomes {
		if err := b.weather(s.registry, pod, down); err != nil {
			return measured{}, err
		}
		if err := until(ctx, begin.Add(b.clock.here(b.lasting)*time.Duration(pod)/time.Duration(b.pods))); err != nil {
			return measured{}, err
		}
		admissions.Go(func() {
			defer ended.Add(1)
			of := pod % len(b.images)
			outcomes[pod] = b.admit(ctx, replicas[pod%b.replicas][of], b.images[of])
		})
	}
	admissions.Wait()
	return sum(outcomes, &s.registry.Ledger), nil
}

// weather switches the registry off before the pods of the middle third, and on after them.
func (b *bench) weather(registry *upstream.Registry, pod int, down bool) error {
	switch {
	case !down:
	case pod == b.pods/3:
		return registry.Stop()
	case pod == 2*b.pods/3:
		return registry.Resume()
	}
	return nil
}

func until(ctx context.Context, at time.Time) error {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tell shows progress until it is stopped.
func (b *bench) tell(name string, ended *atomic.Int64) (stop func()) {
	ticker, stopped := time.NewTicker(15*time.Second), make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		for {
			select {
			case <-ticker.C:
				b.progress("  %s: %d of %d pods", name, ended.Load(), b.pods)
			case <-stopped:
				return
			}
		}
	})
	return func() {
		ticker.Stop()
		close(stopped)
		telling.Wait()
	}
}

// outcome is what became of one pod.
type outcome struct {
	took     time.Duration
	err      error
	timedOut bool
}

func (b *bench) admit(ctx context.Context, from source, of image) outcome {
	ctx, cancel := context.WithTimeout(ctx, b.clock.here(b.deadline))
	defer cancel()
	begin := time.Now()
	err := verify(ctx, from, of)
	if err == nil {
		err = until(ctx, time.Now().Add(b.clock.here(b.working)))
	}
	return outcome{took: b.clock.there(time.Since(begin)), err: err, timedOut: err != nil && ctx.Err() != nil}
}

// verify makes the reads of one verification, in their order.
func verify(ctx context.Context, from source, of image) error {
	found, err := from.Resolve(ctx, tag)
	if err != nil {
		return err
	}
	if found.Digest != of.digest {
		return fmt.Errorf("%s is %s, want %s", of.repository, found.Digest, of.digest)
	}
	list, err := from.Predecessors(ctx, found)
	if err != nil {
		return err
	}
	if len(list) != signatures {
		return fmt.Errorf("%s has %d signatures, want %d", of.repository, len(list), signatures)
	}
	for _, signature := range list {
		if err := readSignature(ctx, from, signature); err != nil {
			return err
		}
	}
	return nil
}

func readSignature(ctx context.Context, from source, signature ocispec.Descriptor) error {
	body, err := content.FetchAll(ctx, from, signature)
	if err != nil {
		return err
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(body, &manifest); err != nil {
		return err
	}
	for _, envelope := range manifest.Layers {
		if _, err := content.FetchAll(ctx, from, envelope); err != nil {
			return err
		}
	}
	_, err = from.Predecessors(ctx, signature)
	return err
}

func sum(outcomes []outcome, asked *upstream.Ledger) measured {
	var m measured
	for _, o := range outcomes {
		m.took = append(m.took, o.took)
		switch {
		case o.err == nil:
			continue
		case o.timedOut:
			m.timeouts++
		default:
			m.failures++
		}
		if m.first == nil {
			m.first = o.err
		}
	}
	for _, request := range asked.Requests() {
		m.requests++
		if request.Status == http.StatusTooManyRequests {
			m.throttled++
		}
	}
	return m
}
