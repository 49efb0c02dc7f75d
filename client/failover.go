package client

import (
	"context"
	"strings"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
)

const (
	// passes is how often all endpoints are asked before a call gives up, when the failure may pass.
	passes = 3
	// passPause is the pause before the second pass; it doubles. Short: a caller with no node to talk to should know.
	passPause = 100 * time.Millisecond
)

// route is the order in which endpoints are asked, and what an answer means for later calls.
type route struct {
	order     func(now time.Time) []int
	succeeded func(i int)
}

// sticky is the route of all calls that do not say otherwise: stay with the node that answers.
func (c *Client) sticky() route { return route{order: c.pool.order, succeeded: c.pool.succeeded} }

// call runs do on one endpoint after another until one answers, within the client's timeout. do must be repeatable.
func (c *Client) call(ctx context.Context, do func(context.Context, registryv1.RegistryServiceClient) error) error {
	return c.callOn(ctx, c.sticky(), do)
}

// callOn is call on a given route.
func (c *Client) callOn(
	ctx context.Context, way route, do func(context.Context, registryv1.RegistryServiceClient) error,
) error {
	return c.callNode(ctx, way, func(ctx context.Context, node *endpoint) error { return do(ctx, node.api) })
}

func (c *Client) callNode(ctx context.Context, way route, do func(context.Context, *endpoint) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.options.timeout)
	defer cancel()
	return c.failover(ctx, way, func(i int, patience time.Duration) error {
		attempt, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return do(attempt, c.pool.endpoints[i])
	})
}

// failover runs try on the endpoints, by index, in turn. The error is the most telling one: what a node answered counts
// more than that another could not be reached.
func (c *Client) failover(ctx context.Context, way route, try func(i int, patience time.Duration) error) error {
	var telling error
	for pass := range passes {
		if pass > 0 {
			c.pool.reconnect()
			if !pause(ctx, passPause<<(pass-1)) {
				return ended(ctx, telling)
			}
		}
		err, final := c.pass(ctx, way, try)
		if err == nil || final {
			return err
		}
		telling = err
		if !passing(err) {
			break
		}
	}
	return telling
}

// pass asks every endpoint once. final tells that err is an answer, or that the caller's time is up.
func (c *Client) pass(
	ctx context.Context, way route, try func(i int, patience time.Duration) error,
) (telling error, final bool) {
	order := way.order(time.Now())
	for asked, i := range order {
		err := try(i, c.patience(ctx, len(order)-asked))
		if err == nil {
			way.succeeded(i)
			return nil, true
		}
		err = errdef.FromGRPC(err)
		if ctx.Err() != nil {
			return ended(ctx, err), true
		}
		if !elsewhere(err) {
			way.succeeded(i)
			return err, true
		}
		c.putAside(i, err)
		telling = moreTelling(telling, describe(c.pool.endpoints[i], err))
	}
	return telling, false
}

// putAside makes other endpoints go first for a while.
func (c *Client) putAside(i int, err error) {
	aside := c.pool.failed(i, time.Now())
	c.options.logger.Debug("node put aside", "endpoint", c.pool.endpoints[i].address, "for", aside, "error", err)
}

// patience is the share of an endpoint in the time left, when left endpoints are still to ask.
func (c *Client) patience(ctx context.Context, left int) time.Duration {
	patience := c.options.attemptTimeout
	if deadline, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(deadline)/time.Duration(left))
	}
	return patience
}

// describe names the node in errors of the connection, and turns an attempt that ended into an unavailable node.
func describe(node *endpoint, err error) error {
	switch errdef.ReasonOf(err) {
	case errdef.Unavailable:
		return errdef.New(errdef.Unavailable, "node at %s cannot be reached: %s", node.address, dialError(err)).
			WithRemedy("check the address, and that nodes are running")
	case errdef.Deadline, errdef.Canceled:
		return errdef.Wrap(errdef.Unavailable, err, "node at %s did not answer in time", node.address).
			WithRemedy("check that nodes are running, or allow more time")
	default:
		return err
	}
}

// dialError is the error of the network, without the layers that gRPC prints around it.
func dialError(err error) string {
	text := err.Error()
	if _, cause, found := strings.Cut(text, "Error while dialing: "); found {
		return strings.TrimSuffix(cause, `"`)
	}
	return text
}

func moreTelling(a, b error) error {
	if a == nil || errdef.ReasonOf(a) == errdef.Unavailable {
		return b
	}
	return a
}

// pause waits, and reports whether the context is still alive.
func pause(ctx context.Context, duration time.Duration) bool {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
