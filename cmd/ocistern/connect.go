package main

import (
	"errors"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/internal/devcluster"
	"github.com/ocistern/ocistern/internal/errdef"
)

// endpointsVariable names the environment variable with the endpoints, separated by commas.
const endpointsVariable = "OCISTERN_ENDPOINTS"

// defaultEndpoint is a node on this machine with the default port.
const defaultEndpoint = "localhost:5010"

// connection holds the flags of the commands that call a cluster.
type connection struct {
	endpoints []string
	tenant    string
	timeout   time.Duration
	verbose   bool
	level     string
	maxAge    time.Duration
}

func (c *connection) register(command *cobra.Command) {
	flags := command.Flags()
	flags.StringSliceVar(&c.endpoints, "endpoint", nil, "gRPC address of a node, HOST:PORT (repeatable; default $"+
		endpointsVariable+",\nelse the last dev cluster, else "+defaultEndpoint+")")
	flags.StringVar(&c.tenant, "tenant", "", "tenant whose content is read")
	flags.DurationVar(&c.timeout, "timeout", 30*time.Second, "time for each request, all nodes tried included")
	flags.BoolVarP(&c.verbose, "verbose", "v", false, "say on standard error which nodes failed and why")
}

// registerReads registers the flags of the commands that read content, too.
func (c *connection) registerReads(command *cobra.Command) {
	c.register(command)
	flags := command.Flags()
	flags.StringVar(&c.level, "read", "session", "how current the answer must be: session, linearizable or bounded")
	flags.DurationVar(&c.maxAge, "max-age", 5*time.Second,
		"for --read bounded: how long ago the node may have\nheard from the leader")
}

// origin is where endpoints come from, and what to do when none of them answers.
type origin struct {
	endpoints []string
	remedy    string
}

// find follows the order of the plan: flags, environment, the last dev cluster, this machine.
func (c *connection) find() (origin, error) {
	const check = "check the address, and that the node is running"
	if len(c.endpoints) > 0 {
		return origin{c.endpoints, check}, nil
	}
	if named := os.Getenv(endpointsVariable); named != "" {
		return origin{strings.Split(named, ","), check + " (" + endpointsVariable + " names it)"}, nil
	}
	pointer, err := devcluster.DefaultPointer()
	if err != nil { // no home directory, so no dev cluster
		return nobodyNamed(), nil
	}
	found, err := pointer.Find()
	switch {
	case errors.Is(err, errdef.ErrNotFound):
		return nobodyNamed(), nil
	case err != nil:
		return origin{}, err
	default:
		return origin{found.GRPC(),
			"the last dev cluster seems to be gone: start one with `ocistern dev`, or name a node with --endpoint"}, nil
	}
}

func nobodyNamed() origin {
	return origin{[]string{defaultEndpoint},
		"start a cluster with `ocistern dev`, or name a node with --endpoint or " + endpointsVariable}
}

// with opens a client, runs do on it, and closes it.
func (c *connection) with(command *cobra.Command, do func(*client.Client) error, more ...client.Option) error {
	from, err := c.find()
	if err != nil {
		return err
	}
	if c.timeout <= 0 {
		return errdef.New(errdef.UsageInvalid, "--timeout %s is not positive", c.timeout).
			WithRemedy("for example --timeout 30s")
	}
	options := append(more, client.WithTimeout(c.timeout))
	switch c.level {
	case "", "session":
	case "linearizable":
		options = append(options, client.WithLinearizableReads())
	case "bounded":
		options = append(options, client.WithBoundedReads(c.maxAge))
	default:
		return errdef.New(errdef.UsageInvalid, "--read %q is no level", c.level).
			WithRemedy("session, linearizable or bounded")
	}
	if c.tenant != "" {
		options = append(options, client.WithTenant(c.tenant))
	}
	if c.verbose {
		handler := slog.NewTextHandler(command.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelDebug})
		options = append(options, client.WithLogger(slog.New(handler)))
	}
	connected, err := client.New(from.endpoints, options...)
	if err != nil {
		return err
	}
	defer connected.Close()
	err = do(connected)
	var typed *errdef.Error
	if !errors.As(err, new(loggedError)) && errors.As(err, &typed) && typed.Reason == errdef.Unavailable {
		return typed.WithRemedy("%s", from.remedy)
	}
	return err
}
