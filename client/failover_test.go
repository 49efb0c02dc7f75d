package client_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"oras.land/oras-go/v2/content"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/testnode"
)

// Whatever one of two nodes suffers from, the other answers, wherever the client starts.
func TestOtherNodeAnswers(t *testing.T) {
	for name, harm := range map[string]func(*testnode.Node){
		"down":           (*testnode.Node).Stop,
		"not ready":      func(n *testnode.Node) { n.Intercept(testnode.Failing(errdef.NotReady)) },
		"no quorum":      func(n *testnode.Node) { n.Intercept(testnode.Failing(errdef.NoQuorum)) },
		"overloaded":     func(n *testnode.Node) { n.Intercept(testnode.Failing(errdef.Overloaded)) },
		"corrupt disk":   func(n *testnode.Node) { n.Intercept(testnode.Failing(errdef.ContentCorrupt)) },
		"internal error": func(n *testnode.Node) { n.Intercept(testnode.Failing(errdef.Internal)) },
		"hangs":          func(n *testnode.Node) { n.Intercept(testnode.Hanging) },
		"wrong bytes":    func(n *testnode.Node) { n.Alter(testnode.FlipLast) },
		"short":          func(n *testnode.Node) { n.Alter(func(b []byte) []byte { return b[:len(b)-1] }) },
		"long":           func(n *testnode.Node) { n.Alter(func(b []byte) []byte { return append(b, '!') }) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, 2)
			harm(f.nodes[0])
			patience := time.Minute
			if name == "hangs" {
				patience = time.Second // enough for a node that lives, on a busy machine
			}
			for range 4 { // each client starts at a random node
				_, repository := f.open(t, client.WithAttemptTimeout(patience))
				for _, err := range verifierReads(within(t, time.Minute), repository) {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// verifierReads makes the kinds of requests a verifier makes: manifest and small blob, by tag and by digest.
func verifierReads(ctx context.Context, repository *client.Repository) []error {
	root, body, err := repository.FetchReference(ctx, "v1")
	if err != nil {
		return []error{err}
	}
	errs := []error{body.Close()}
	_, err = repository.Resolve(ctx, "v1")
	errs = append(errs, err)
	signatures, err := repository.Predecessors(ctx, root)
	errs = append(errs, err)
	for _, signature := range signatures {
		_, err := content.FetchAll(ctx, repository, signature)
		errs = append(errs, err)
		parts, err := content.Successors(ctx, repository, signature)
		errs = append(errs, err)
		for _, part := range parts {
			_, err = content.FetchAll(ctx, repository, part)
			errs = append(errs, err)
		}
	}
	return errs
}

// A definite answer is not asked for twice: above all not what an upstream that throttles said.
func TestAnswersAreFinal(t *testing.T) {
	for reason, want := range map[errdef.Reason]error{
		errdef.NotFound:             client.ErrNotFound,
		errdef.Denied:               client.ErrDenied,
		errdef.UpstreamThrottled:    client.ErrUpstreamThrottled,
		errdef.UpstreamUnavailable:  client.ErrUpstreamUnavailable,
		errdef.UpstreamTimeout:      client.ErrUpstreamTimeout,
		errdef.UpstreamUnauthorized: client.ErrUpstreamUnauthorized,
		errdef.UpstreamUnknown:      client.ErrUpstreamUnknown,
		errdef.DigestMismatch:       client.ErrDigestMismatch, // found by the node: upstream sent something else
	} {
		f := newFixture(t, 3)
		f.each(func(n *testnode.Node) { n.Intercept(testnode.Failing(reason)) })
		_, repository := f.open(t)
		_, err := repository.Resolve(t.Context(), "v1")
		var typed *client.Error
		if !errors.Is(err, want) || !errors.As(err, &typed) || typed.Remedy == "" {
			t.Errorf("%s: got %v", reason, err)
		}
		if calls := f.calls(""); calls != 1 {
			t.Errorf("%s: %d requests, want 1", reason, calls)
		}
	}
}

// When nobody answers, the error is quick, typed, and the most telling one.
func TestNobodyAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(*testnode.Node)
		want error
	}{
		"all down":              {(*testnode.Node).Stop, client.ErrUnavailable},
		"all without quorum":    {func(n *testnode.Node) { n.Intercept(testnode.Failing(errdef.NoQuorum)) }, client.ErrNoQuorum},
		"all not ready":         {func(n *testnode.Node) { n.Intercept(testnode.Failing(errdef.NotReady)) }, client.ErrNotReady},
		"all outcome unknown":   {func(n *testnode.Node) { n.Intercept(testnode.Failing(errdef.OutcomeUnknown)) }, client.ErrOutcomeUnknown},
		"all send wrong bytes":  {func(n *testnode.Node) { n.Alter(testnode.FlipLast) }, client.ErrDigestMismatch},
		"all send short bodies": {func(n *testnode.Node) { n.Alter(func(b []byte) []byte { return b[1:] }) }, client.ErrSizeMismatch},
	} {
		f := newFixture(t, 3)
		f.each(c.harm)
		_, repository := f.open(t)
		start := time.Now()
		_, _, err := repository.FetchReference(t.Context(), "v1")
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: took %s", name, took)
		}
	}
}

func TestMostTellingErrorWins(t *testing.T) {
	f := newFixture(t, 3)
	f.nodes[0].Stop()
	f.nodes[1].Intercept(testnode.Failing(errdef.NoQuorum))
	f.nodes[2].Stop()
	_, repository := f.open(t)
	if _, err := repository.Resolve(t.Context(), "v1"); !errors.Is(err, client.ErrNoQuorum) {
		t.Errorf("got %v, want the answer of the one node that lives", err)
	}
}

func TestDeadlineAndCancel(t *testing.T) {
	f := newFixture(t, 3)
	f.each(func(n *testnode.Node) { n.Intercept(testnode.Hanging) })
	_, repository := f.open(t)
	if _, err := repository.Resolve(within(t, 3*time.Second), "v1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("context's deadline: %v", err)
	}
	if calls := f.calls("Resolve"); calls != 3 {
		t.Errorf("%d nodes asked before the deadline, want each once", calls)
	}
	_, impatient := f.open(t, client.WithTimeout(200*time.Millisecond))
	if _, err := impatient.Resolve(t.Context(), "v1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("client's timeout: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.each(func(n *testnode.Node) {
		n.Intercept(func(ctx context.Context, call testnode.Call) error { cancel(); return testnode.Hanging(ctx, call) })
	})
	if _, err := repository.Resolve(ctx, "v1"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A cluster that is not ready yet is asked again, for a moment.
func TestNotReadyPasses(t *testing.T) {
	f := newFixture(t, 1)
	f.nodes[0].Intercept(func(ctx context.Context, call testnode.Call) error {
		if f.calls("") < 3 {
			return testnode.Failing(errdef.NotReady)(ctx, call)
		}
		return nil
	})
	_, repository := f.open(t)
	if _, err := repository.Resolve(t.Context(), "v1"); err != nil {
		t.Error(err)
	}
}

// A host that swallows packets looks like a listener whose backlog nobody reads: the connection never speaks HTTP/2.
func TestSilentHost(t *testing.T) {
	var config net.ListenConfig
	silent, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	f := newFixture(t, 1)
	c, err := client.New([]string{silent.Addr().String(), f.nodes[0].Address, silent.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	repository, tag, err := c.Open(repositoryName + ":v1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repository.Resolve(within(t, 6*time.Second), tag); err != nil {
		t.Error(err)
	}
}

// Clients stay with a node that answers, and come back to a cluster that was away.
func TestStickyAndBack(t *testing.T) {
	f := newFixture(t, 3)
	_, repository := f.open(t)
	for range 10 {
		if _, err := repository.Resolve(t.Context(), "v1"); err != nil {
			t.Fatal(err)
		}
	}
	busy := 0
	for _, node := range f.nodes {
		if len(node.Calls()) > 0 {
			busy++
		}
	}
	if busy != 1 {
		t.Errorf("%d nodes were asked, want one", busy)
	}
	f.each((*testnode.Node).Stop)
	if _, err := repository.Resolve(t.Context(), "v1"); !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), "127.0.0.1:") {
		t.Fatalf("all down: %v", err)
	}
	for _, node := range f.nodes {
		if err := node.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	for ctx := within(t, time.Minute); ; { // gRPC reconnects within a second
		_, err := repository.Resolve(ctx, "v1")
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// One client, many callers, and nodes that die and come back: no caller sees an error while the others live.
func TestManyCallersWhileNodesDie(t *testing.T) {
	f := newFixture(t, 3)
	_, repository := f.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	done := make(chan struct{})
	for range 16 {
		callers.Go(func() {
			for ctx.Err() == nil {
				for _, err := range verifierReads(t.Context(), repository) {
					if err != nil {
						t.Error(err)
					}
				}
				select {
				case done <- struct{}{}:
				case <-ctx.Done():
				}
			}
		})
	}
	for _, node := range f.nodes {
		node.Stop()
		for range 20 { // verifications, with the node away
			<-done
		}
		if err := node.Restart(); err != nil {
			t.Error(err)
		}
		for range 20 {
			<-done
		}
	}
	cancel()
	callers.Wait()
}
