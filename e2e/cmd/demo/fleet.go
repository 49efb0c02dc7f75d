package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/e2e/signed"
)

// verifier is one replica of a fleet: it has a connection of its own and shares nothing with the others but the policy.
type verifier struct {
	target oras.GraphTarget
	// reference is what it verifies, host/repository:tag.
	reference string
	close     func() error
}

// measured is what a fleet did.
type measured struct {
	total, verified int
	p50, p99        time.Duration
	err             error // of the verifications that failed; nil when all succeeded
}

// verifyAll lets all verifiers verify at once, counts them in done as they finish, and closes them.
func verifyAll(ctx context.Context, policy *signed.Verifier, fleet []verifier, done *atomic.Int64) measured {
	var (
		all   sync.WaitGroup
		took  = make([]time.Duration, len(fleet))
		fails = make([]error, len(fleet))
		start = make(chan struct{})
	)
	for i, v := range fleet {
		all.Go(func() {
			<-start
			begin := time.Now()
			_, err := policy.Verify(ctx, v.target, v.reference)
			took[i] = time.Since(begin)
			fails[i] = errors.Join(err, v.close())
			done.Add(1)
		})
	}
	close(start)
	all.Wait()
	return summarize(took, fails)
}

func summarize(took []time.Duration, fails []error) measured {
	m := measured{total: len(fails)}
	for _, err := range fails {
		if err == nil {
			m.verified++
		} else if m.err == nil {
			m.err = err // one tells the story; sixty of them bury it
		}
	}
	if m.err != nil {
		m.err = fmt.Errorf("%d of %d verifications failed, the first with: %w", m.total-m.verified, m.total, m.err)
	}
	slices.Sort(took)
	m.p50, m.p99 = quantile(took, 0.50), quantile(took, 0.99)
	return m
}

// quantile returns the nearest rank of sorted values, which must not be empty.
func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[int(math.Ceil(q*float64(len(sorted))))-1]
}

// direct returns n verifiers that read the registry itself, as fleets do without a cache.
func direct(n int, host, repository, tag string) ([]verifier, error) {
	var fleet []verifier
	for range n {
		target, err := remote.NewRepository(host + "/" + repository)
		if err != nil {
			return nil, err
		}
		transport := &http.Transport{}
		target.PlainHTTP = true
		target.Client = &http.Client{Transport: transport}
		fleet = append(fleet, verifier{
			target: target, reference: host + "/" + repository + ":" + tag,
			close: func() error { transport.CloseIdleConnections(); return nil },
		})
	}
	return fleet, nil
}

// through returns n verifiers that read through Ocistern. The i-th is configured with endpoints(i).
func through(n int, repository, tag string, endpoints func(i int) []string) ([]verifier, error) {
	var fleet []verifier
	for i := range n {
		session, err := client.New(endpoints(i))
		if err != nil {
			return nil, err
		}
		target, err := session.Repository(repository)
		if err != nil {
			return nil, err
		}
		fleet = append(fleet, verifier{target: target, reference: repository + ":" + tag, close: session.Close})
	}
	return fleet, nil
}
