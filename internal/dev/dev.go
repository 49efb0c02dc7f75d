// Package dev runs a cluster on this machine for somebody who wants to try or test Ocistern: one `ocistern serve`
// process a node, a note of where they are (package devcluster), and an orderly end.
//
// It knows nodes only from outside: configuration files, processes, health and status. `ocistern dev` calls it.
package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/ocistern/ocistern/internal/config"
	"github.com/ocistern/ocistern/internal/devcluster"
	"github.com/ocistern/ocistern/internal/errdef"
)

// DefaultBasePort is where the ports of a cluster begin when nobody says otherwise.
const DefaultBasePort = 5000

// MaxNodes bounds a dev cluster: the ports of one kind are ten apart.
const MaxNodes = 9

// Options describes a dev cluster.
type Options struct {
	Nodes      int
	Data       string // directory that is kept; empty for a temporary one
	BasePort   int    // 0 for free ports
	FixedPorts bool   // BasePort was asked for, not defaulted: data of a cluster with other ports are refused
	// Upstreams, Credentials and Policies are what the flags of `ocistern serve` take: NAME=URL, or mappings in YAML.
	Upstreams, Credentials, Policies []string

	mirrored []config.Upstream // what Upstreams says

	Executable string // the binary whose serve command is started
	Command    string // how the person called the binary, for the commands that are printed
	Version    string
	Pointer    devcluster.Pointer
	Stdout     io.Writer // gets the line "ready"
	Stderr     io.Writer // gets everything for a person
}

// readyTimeout bounds the time until all nodes are ready, stopTimeout the time that nodes get to stop on their own.
const (
	readyTimeout = 60 * time.Second
	stopTimeout  = 15 * time.Second
)

// Run starts the cluster and keeps it until ctx ends, which is no error. A node that dies later is reported on Stderr
// and the others go on; one that dies before the cluster is ready, or the end of the last one, ends Run with an error.
// Temporary data are removed at the end.
func Run(ctx context.Context, options Options) (err error) {
	// Nodes die with the thread that started them (see process_linux.go), so it must live as long as Run.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	if options.mirrored, err = options.check(); err != nil {
		return err
	}
	dir, remove, err := dataDir(options.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	nodes, reserved, err := layOut(dir, options)
	if err != nil {
		return err
	}
	defer reserved.release()
	for _, n := range nodes {
		if err := n.writeConfig(nodes, options); err != nil {
			return err
		}
	}
	reserved.release() // the nodes take the ports now
	fleet, err := start(options.Executable, nodes)
	defer fleet.stop(stopTimeout)
	if err != nil {
		return err
	}
	return serve(ctx, options, dir, fleet)
}

// serve announces a started fleet and waits for its end.
func serve(ctx context.Context, options Options, dir string, fleet *fleet) error {
	endpoints := filepath.Join(dir, devcluster.EndpointsFile)
	if err := devcluster.Write(endpoints, fleet.endpoints()); err != nil {
		return err
	}
	if err := waitReady(ctx, fleet); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if err := options.Pointer.Remember(endpoints); err != nil {
		return err
	}
	defer func() {
		if options.Data != "" {
			return // can be found and started again
		}
		if err := options.Pointer.Forget(endpoints); err != nil {
			fmt.Fprintln(options.Stderr, "ocistern dev:", err)
		}
	}()
	fmt.Fprintln(options.Stdout, "ready")
	fmt.Fprint(options.Stderr, banner(ctx, options, dir, fleet))
	for running := len(fleet.nodes); running > 0; running-- {
		select {
		case <-ctx.Done():
			fmt.Fprintln(options.Stderr, "ocistern dev: stopping")
			return nil
		case death := <-fleet.deaths:
			fmt.Fprintf(options.Stderr, "ocistern dev: %s\n  bring it back with: %s\n", death, death.node.restart(options))
		}
	}
	return errdef.New(errdef.Unavailable, "all nodes have died").
		WithRemedy("their logs are %s", filepath.Join(dir, "n*", logFile))
}

func (o Options) check() ([]config.Upstream, error) {
	if o.Nodes < 1 || o.Nodes > MaxNodes {
		return nil, errdef.New(errdef.UsageInvalid, "cannot start %d nodes", o.Nodes).WithRemedy("--nodes 1 to %d", MaxNodes)
	}
	if o.BasePort < 0 || o.BasePort > 65000 {
		return nil, errdef.New(errdef.UsageInvalid, "%d is not a base port", o.BasePort).WithRemedy("--base-port 1 to 65000, or 0")
	}
	flags := o.settings()
	flags["name"] = []string{"n1"}
	parsed, _, err := config.Load(config.Sources{Flags: flags})
	return parsed.Upstreams, err
}

// settings are the flags of `ocistern serve` that all nodes share.
func (o Options) settings() map[string][]string {
	return map[string][]string{"upstream": o.Upstreams, "credential": o.Credentials, "policy": o.Policies}
}

// dataDir names the directory of the cluster and makes a temporary one. remove does nothing for one that is kept.
func dataDir(kept string) (dir string, remove func() error, err error) {
	if kept == "" {
		dir, err = os.MkdirTemp("", "ocistern-dev-")
		remove = func() error {
			if err := os.RemoveAll(dir); err != nil {
				return errdef.Wrap(errdef.Internal, err, "cannot remove the temporary data")
			}
			return nil
		}
	} else {
		dir, err = filepath.Abs(kept) // made with the first node's directory, once the ports are known to be free
		remove = func() error { return nil }
	}
	if err != nil {
		return "", nil, errdef.Wrap(errdef.ConfigInvalid, err, "cannot make the data directory").
			WithRemedy("name another one with --data")
	}
	return dir, remove, nil
}
