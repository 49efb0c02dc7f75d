package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// operation is one write or read by one of the clients, numbered from 0.
type operation func(ctx context.Context, client int) error

// sample is one operation that succeeded.
type sample struct {
	began time.Time
	took  time.Duration
}

// maxFailed is the share of operations that may fail before a measurement counts as none.
const maxFailed = 0.01

// errTooShort is why a measurement failed in which no operation did.
var errTooShort = errors.New("the time was too short for one")

// drive lets clients repeat an operation, each as soon as its last one was answered, for a time. It returns what succeeded
// in that time.
func drive(ctx context.Context, clients int, length time.Duration, do operation) ([]sample, error) {
	ctx, cancel := context.WithTimeout(ctx, length+maxLate)
	defer cancel()
	end := time.Now().Add(length)
	var (
		running sync.WaitGroup
		failed  atomic.Int64
		failure atomic.Pointer[error]
	)
	samples := make([][]sample, clients)
	for client := range clients {
		running.Go(func() {
			for began := time.Now(); began.Before(end); {
				err := do(ctx, client)
				now := time.Now()
				switch {
				case err != nil:
					failed.Add(1)
					failure.Store(&err)
				case !now.After(end):
					samples[client] = append(samples[client], sample{began: began, took: now.Sub(began)})
				}
				began = now
			}
		})
	}
	running.Wait()
	all := slices.Concat(samples...)
	if n := failed.Load(); len(all) == 0 || float64(n) > maxFailed*float64(len(all)) {
		cause := cmp.Or(context.Cause(ctx), errTooShort)
		if last := failure.Load(); last != nil {
			cause = *last
		}
		return nil, fmt.Errorf("%d of %d operations failed: %w", n, n+int64(len(all)), cause)
	}
	return all, nil
}

// maxLate bounds how long the last operations may outlast the time of a measurement.
const maxLate = 30 * time.Second
