package client

import (
	"log/slog"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ocistern/ocistern/internal/errdef"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
	"github.com/ocistern/ocistern/internal/reference"
)

// Option changes a default of New.
type Option func(*options) error

type options struct {
	tenant         reference.Tenant
	timeout        time.Duration
	attemptTimeout time.Duration
	credentials    credentials.TransportCredentials
	logger         *slog.Logger
	level          registryv1.ReadLevel
	maxAge         *durationpb.Duration
}

func defaultOptions() options {
	return options{
		timeout:        30 * time.Second,
		attemptTimeout: 10 * time.Second,
		credentials:    insecure.NewCredentials(),
		logger:         slog.New(slog.DiscardHandler),
	}
}

// WithLinearizableReads makes every answer see all writes that anybody was told of before the call, at the price of a
// round trip to a majority of the voters. Without a quorum calls fail with ErrNoQuorum. By default a client never goes
// back in time, and may not yet see what another client has just written.
func WithLinearizableReads() Option {
	return func(o *options) error {
		o.level, o.maxAge = registryv1.ReadLevel_READ_LEVEL_LINEARIZABLE, nil
		return nil
	}
}

// WithBoundedReads accepts an answer from any node that has heard from the leader within age. Other nodes are passed over;
// when none is left, calls fail with ErrStale.
func WithBoundedReads(age time.Duration) Option {
	return func(o *options) error {
		o.level, o.maxAge = registryv1.ReadLevel_READ_LEVEL_BOUNDED, durationpb.New(age)
		return positive("age", age)
	}
}

// WithTenant names the tenant whose content is read. By default the node decides.
func WithTenant(name string) Option {
	return func(o *options) (err error) {
		o.tenant, err = reference.ParseTenant(name)
		return err
	}
}

// WithTimeout bounds each call as a whole, all nodes that it tries included. The context's deadline counts when it is
// earlier. For a blob it bounds the time to its first byte; the context bounds the body. 30 s by default.
func WithTimeout(timeout time.Duration) Option {
	return func(o *options) error {
		o.timeout = timeout
		return positive("timeout", timeout)
	}
}

// WithAttemptTimeout bounds the silence of one node: how long it may take to answer before the next one is asked, and
// how long a blob may stall in between. A node gets less when the deadline leaves less for each. 10 s by default.
func WithAttemptTimeout(timeout time.Duration) Option {
	return func(o *options) error {
		o.attemptTimeout = timeout
		return positive("attempt timeout", timeout)
	}
}

// WithTransportCredentials protects the connections, for example by TLS. By default they are plain.
func WithTransportCredentials(transport credentials.TransportCredentials) Option {
	return func(o *options) error {
		if transport == nil {
			return errdef.New(errdef.ConfigInvalid, "transport credentials are nil").WithRemedy("leave the option out")
		}
		o.credentials = transport
		return nil
	}
}

// WithLogger receives, at debug level, why a node was put aside. By default nothing is logged.
func WithLogger(logger *slog.Logger) Option {
	return func(o *options) error {
		if logger == nil {
			return errdef.New(errdef.ConfigInvalid, "logger is nil").WithRemedy("leave the option out")
		}
		o.logger = logger
		return nil
	}
}

func positive(name string, value time.Duration) error {
	if value > 0 {
		return nil
	}
	return errdef.New(errdef.ConfigInvalid, "%s %s is not positive", name, value).WithRemedy("for example 30s")
}
