package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// verifyDirectly measures what the same fleet asks of the registry without a cache.
func (d *demo) verifyDirectly(ctx context.Context) error {
	fleet, err := direct(d.options.verifiers, d.registry.Host(), repository, tag)
	if err != nil {
		return err
	}
	d.registry.Ledger.Reset()
	m, err := d.verify(ctx, "verifying directly at the registry", fleet)
	if err != nil {
		return err
	}
	d.direct, d.objects = d.registry.Ledger.Count(), len(d.registry.Ledger.Objects())
	d.registry.Ledger.Reset()
	d.show.row("directly at the registry", m, d.direct, d.direct, m.err == nil)
	return m.err
}

// verifyCold lets the fleet verify through all nodes, none of which has seen the image.
func (d *demo) verifyCold(ctx context.Context) error {
	all := d.cluster.Nodes()
	pinned := func(i int) []string { return []string{all[i%len(all)].GRPC()} }
	name := fmt.Sprintf("through %s, cold, %d verifiers each", names(all), d.options.verifiers/len(all))
	return d.step(ctx, name, d.objects, pinned)
}

// killLeader kills the leading node, once everything that was fetched is published, and lets the fleet verify at once.
// Each verifier still knows all three nodes.
func (d *demo) killLeader(ctx context.Context) error {
	d.show.busy("letting the catalog settle", nil)
	if err := d.cluster.AwaitPublished(ctx, &d.registry.Ledger); err != nil {
		return err
	}
	leader, err := d.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	if err := leader.Kill(); err != nil {
		return err
	}
	killed := time.Now()
	successor := make(chan string, 1)
	go func() {
		next, err := d.cluster.Leader(ctx)
		if err != nil {
			successor <- "no new leader: " + err.Error()
			return
		}
		successor <- fmt.Sprintf("%s leads after %s", next.Name, seconds(time.Since(killed)))
	}()
	fleet, err := d.through(d.anyNode)
	if err != nil {
		return err
	}
	m, err := d.verify(ctx, "leader killed, verifying", fleet)
	if err != nil {
		return err
	}
	d.show.busy("waiting for a new leader", nil)
	return d.judge(fmt.Sprintf("leader %s killed; %s", leader.Name, <-successor), m, 0)
}

// stopRegistry verifies while nobody can ask the registry.
func (d *demo) stopRegistry(ctx context.Context) error {
	if err := d.registry.Stop(); err != nil {
		return err
	}
	return d.step(ctx, "registry stopped, "+names(d.cluster.Running())+" left", 0, d.anyNode)
}

// restartNode starts the dead node again and lets the whole fleet verify through that node alone.
func (d *demo) restartNode(ctx context.Context) error {
	for _, node := range d.cluster.Nodes() {
		if node.Running() {
			continue
		}
		d.show.busy("restarting "+node.Name, nil)
		begin := time.Now()
		if err := node.Start(); err != nil {
			return err
		}
		if err := node.AwaitReady(ctx); err != nil {
			return err
		}
		if _, err := d.cluster.SameCatalog(ctx); err != nil {
			return err
		}
		name := fmt.Sprintf("%s restarted, caught up after %s", node.Name, seconds(time.Since(begin)))
		return d.step(ctx, name, 0, func(int) []string { return []string{node.GRPC()} })
	}
	return errors.New("no node is dead")
}

// conclude prints the sum of it.
func (d *demo) conclude(ctx context.Context) error {
	same, err := d.cluster.SameCatalog(ctx)
	if err != nil {
		return err
	}
	d.show.line(d.show.styled(dim,
		"    asked: requests to the registry in this step; direct: those of the same verifications without Ocistern"))
	d.show.line("")
	d.show.fact("verified", "%s times through the nodes, each time %d signatures with notation-go",
		grouped(d.verified), signatures)
	d.show.fact("registry", "%d requests, none for an object it had been asked for before", d.requests)
	d.show.fact("direct", "%s requests for as many verifications, %.0f times as many",
		grouped(d.instead), float64(d.instead)/float64(max(d.requests, 1)))
	d.show.fact("catalog", "the same on all nodes: index %d, %d manifests, digest %.19s",
		same.Index, same.Manifests, same.Digest)
	d.show.line("")
	d.show.line(d.show.styled(green, "Every step held."))
	return nil
}

// step verifies with a fleet through the nodes that endpoints names, and judges the outcome.
func (d *demo) step(ctx context.Context, name string, allowed int, endpoints func(int) []string) error {
	fleet, err := d.through(endpoints)
	if err != nil {
		return err
	}
	m, err := d.verify(ctx, name, fleet)
	if err != nil {
		return err
	}
	return d.judge(name, m, allowed)
}

// judge prints the row of a step, which held when every verification succeeded, the registry was asked for at most
// allowed objects, and for none that it had been asked for before.
func (d *demo) judge(name string, m measured, allowed int) error {
	requests := d.registry.Ledger.Count() - d.requests
	d.requests += requests
	d.verified += m.verified
	d.instead += d.direct
	err := errors.Join(m.err, d.registry.Ledger.Repeated())
	if requests > allowed {
		err = errors.Join(err, fmt.Errorf("the registry was asked %d times, %d are allowed", requests, allowed))
	}
	d.show.row(name, m, requests, d.direct, err == nil)
	if err != nil {
		return fmt.Errorf("step %q: %w", name, err)
	}
	return nil
}

func (d *demo) through(endpoints func(int) []string) ([]verifier, error) {
	return through(d.options.verifiers, upstreamName+"/"+repository, tag, endpoints)
}

// anyNode is the configuration of a verifier that knows all nodes, the dead ones too.
func (d *demo) anyNode(int) []string { return d.cluster.Endpoints() }
