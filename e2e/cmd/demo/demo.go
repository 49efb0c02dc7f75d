package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"oras.land/oras-go/v2/registry/remote"

	"github.com/ocistern/ocistern/e2e/nodes"
	"github.com/ocistern/ocistern/e2e/signed"
	"github.com/ocistern/ocistern/e2e/upstream"
)

const (
	nodeCount    = 3
	upstreamName = "up.test"
	repository   = "demo/app"
	tag          = "v1"
	signatures   = 5
	// patience bounds each step; the whole takes about half a minute.
	patience = time.Minute
)

// demo is the scene: what runs, and what has been measured so far.
type demo struct {
	options options
	dir     string
	show    *screen

	registry *upstream.Registry
	policy   *signed.Verifier
	cluster  *nodes.Cluster

	objects  int // different objects that one verification reads
	direct   int // requests that a whole fleet makes when it asks the registry itself
	verified int // verifications through the nodes
	requests int // requests that reached the registry for them
	instead  int // requests that as many direct verifications make
}

// play runs all steps; it stops at the first that does not hold.
func (d *demo) play(ctx context.Context) error {
	title := fmt.Sprintf("Ocistern demo: %d verifiers, %d nodes, one registry", d.options.verifiers, nodeCount)
	d.show.line(d.show.styled(bold, title))
	d.show.line("")
	for _, step := range []func(context.Context) error{
		d.startRegistry, d.startNodes, d.verifyDirectly, d.verifyCold,
		d.killLeader, d.stopRegistry, d.restartNode, d.conclude,
	} {
		bounded, cancel := context.WithTimeout(ctx, patience)
		err := step(bounded)
		cancel()
		if err != nil {
			return fmt.Errorf("%w%s", err, d.logs())
		}
	}
	return nil
}

// logs returns the ends of the nodes' logs, for a failure message.
func (d *demo) logs() string {
	if d.cluster == nil {
		return ""
	}
	text := ""
	for _, node := range d.cluster.Nodes() {
		text += fmt.Sprintf("\n--- end of the log of %s:\n%s", node.Name, node.LogTail(10))
	}
	return text
}

// close ends the processes and the registry.
func (d *demo) close() error {
	var failures []error
	if d.cluster != nil {
		failures = append(failures, d.cluster.Close())
	}
	if d.registry != nil {
		failures = append(failures, d.registry.Close())
	}
	return errors.Join(failures...)
}

func (d *demo) startRegistry(ctx context.Context) (err error) {
	d.show.busy("starting a registry, pushing and signing an image", nil)
	options := upstream.Options{Software: upstream.ContainerRegistry, Latency: d.options.latency}
	if d.registry, err = upstream.Start(options); err != nil {
		return err
	}
	target, err := remote.NewRepository(d.registry.Host() + "/" + repository)
	if err != nil {
		return err
	}
	target.PlainHTTP = true
	image := signed.Image{Tag: tag, Layers: []int{3 << 20, 1 << 20, 256 << 10, 64 << 10}}
	for _, name := range [signatures]string{"build", "security", "quality", "release", "platform"} {
		signer, err := signed.NewSigner(name)
		if err != nil {
			return err
		}
		image.Signers = append(image.Signers, signer)
	}
	manifest, err := signed.Push(ctx, target, image)
	if err != nil {
		return err
	}
	if d.policy, err = signed.NewVerifier(image.Signers...); err != nil {
		return err
	}
	d.show.fact("registry", "%s at %s, answers after %s", d.registry.Software(), d.registry.URL(), d.options.latency)
	d.show.fact("image", "%s/%s:%s, %.19s..., %d layers",
		upstreamName, repository, tag, manifest.Digest, len(image.Layers))
	d.show.fact("policy", "%d notation signatures, all required, each by another certificate", len(image.Signers))
	return nil
}

func (d *demo) startNodes(ctx context.Context) (err error) {
	d.show.busy(fmt.Sprintf("starting %d nodes", nodeCount), nil)
	d.cluster, err = nodes.Prepare(nodes.Options{
		Binary: d.options.binary, Dir: d.dir, Count: nodeCount,
		Upstreams: []nodes.Upstream{{Name: upstreamName, URL: d.registry.URL()}},
	})
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := d.cluster.Start(ctx); err != nil {
		return err
	}
	leader, err := d.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	took := seconds(time.Since(begin))
	d.show.fact("nodes", "%s, ready in %s; %s leads", names(d.cluster.Nodes()), took, leader.Name)
	d.show.head()
	return nil
}

// verify runs a fleet behind a counter and returns what it did. It fails only when ctx has ended; then nothing that was
// measured means anything.
func (d *demo) verify(ctx context.Context, doing string, fleet []verifier) (measured, error) {
	var done atomic.Int64
	d.show.busy(doing, func() string { return fmt.Sprintf("%d/%d", done.Load(), len(fleet)) })
	m := verifyAll(ctx, d.policy, fleet, &done)
	if ended := context.Cause(ctx); ended != nil {
		return m, errors.Join(ended, m.err)
	}
	return m, nil
}

func names(list []*nodes.Node) string {
	var all []string
	for _, node := range list {
		all = append(all, node.Name)
	}
	return strings.Join(all, " ")
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
