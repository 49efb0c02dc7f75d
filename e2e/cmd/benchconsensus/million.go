package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/e2e/figure"
	"github.com/ocistern/ocistern/e2e/nodes"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/reference"
)

const (
	recordsPerArtifact = 4 // tag, manifest, link, blob
	artifactsPerWrite  = 100
	artifactsPerName   = 1000 // in one repository
	// artifactSize is beyond what nodes copy from each other: nobody has these bytes.
	artifactSize = 1 << 20

	restartTarget = 10 * time.Second
	memoryTarget  = 1.2 * 1024 // bytes a record
	restarts      = 3
	loadTime      = 10 * time.Minute
	snapshotTime  = 4 * time.Minute
	snapshotPoll  = 5 * time.Millisecond
)

// million fills a cluster of its own with a million records and measures what that costs.
func (b *bench) million(ctx context.Context) (err error) {
	dir := filepath.Join(b.dir, "million")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	o, err := startOcistern(starting, b.ocistern, dir)
	defer func() { err = errors.Join(err, o.close()) }()
	if err != nil {
		return err
	}
	empty, err := resident(o.cluster)
	if err != nil {
		return err
	}
	if err := b.load(ctx, o); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	if err := b.snapshot(ctx, o); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := b.restart(ctx, o); err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	full, err := resident(o.cluster)
	if err != nil {
		return err
	}
	b.table.Print(figure.Figure{
		Name: "memory-per-record", Unit: figure.Bytes, Ours: (full - empty) / float64(b.records), Target: figure.AtMost(memoryTarget),
	})
	return nil
}

// load writes the records, in the mix of published artifacts, many with each command.
func (b *bench) load(ctx context.Context, o *ocistern) (err error) {
	ctx, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	c, err := o.dial(ctx, connections, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	began, artifacts := time.Now(), b.records/recordsPerArtifact
	failures := make(chan error, connections)
	for writer := range connections {
		go func() {
			var err error
			for first := writer * artifactsPerWrite; first < artifacts && err == nil; first += connections * artifactsPerWrite {
				err = c.submit(ctx, writer, publishArtifacts(first, min(artifactsPerWrite, artifacts-first)))
			}
			failures <- err
		}()
	}
	var all []error
	for range connections {
		all = append(all, <-failures)
	}
	if err := errors.Join(all...); err != nil {
		return err
	}
	b.progress("%d records written in %s", artifacts*recordsPerArtifact, time.Since(began).Round(time.Millisecond))
	_, err = o.cluster.SameCatalog(ctx)
	return err
}

// publishArtifacts is a command that publishes artifacts by number: for each a tag, a manifest, a link and a blob.
func publishArtifacts(first, count int) catalog.Publish {
	now := time.Now()
	publish := catalog.Publish{
		Tenant: reference.DefaultTenant, Source: catalog.SourcePushed, Time: now, Holder: "elsewhere",
		Repository: reference.Repository(fmt.Sprintf("bench/app-%d", first/artifactsPerName)),
	}
	for i := first; i < first+count; i++ {
		desc := ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Size: artifactSize,
			Digest: digest.FromString(strconv.Itoa(i)),
		}
		publish.Blobs = append(publish.Blobs, desc)
		publish.Manifests = append(publish.Manifests, catalog.Manifest{Descriptor: desc})
		publish.Tags = append(publish.Tags, catalog.TagUpdate{Name: reference.Tag(tagName(i)), Descriptor: desc})
	}
	return publish
}

// snapshot writes until nodes have taken snapshots of their own accord, and compares what was written meanwhile with
// the rest. Whenever one node is at it, all are slower: they share the machine.
func (b *bench) snapshot(ctx context.Context, o *ocistern) error {
	watching, stop := context.WithTimeout(ctx, snapshotTime)
	defer stop()
	type outcome struct {
		windows []window
		err     error
	}
	watched := make(chan outcome, 1)
	go func() {
		windows, err := watchSnapshots(watching, o.cluster, b.snapshots)
		watched <- outcome{windows, err}
	}()
	var samples []sample
	for failures := 0; ; {
		more, err := b.writeForASecond(ctx, o)
		if err != nil {
			if failures++; failures == attempts {
				return err
			}
			b.progress("writing failed, trying again: %v", err)
		}
		samples = append(samples, more...)
		select {
		case taken := <-watched:
			if taken.err != nil {
				return fmt.Errorf("fewer than %d nodes took a snapshot within %s: %w", b.snapshots, snapshotTime, taken.err)
			}
			return b.compareSnapshot(samples, taken.windows)
		default:
		}
	}
}

func (b *bench) writeForASecond(ctx context.Context, o *ocistern) (samples []sample, err error) {
	c, err := o.dial(ctx, connections, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	return drive(ctx, b.writers, time.Second, func(ctx context.Context, client int) error {
		return c.write(ctx, client, client)
	})
}

func (b *bench) compareSnapshot(samples []sample, windows []window) error {
	var during, without []time.Duration
	var held time.Duration
	for _, w := range windows {
		b.progress("a snapshot was taken within %s", w.end.Sub(w.begin).Round(time.Millisecond))
	}
	windows = union(windows)
	for _, w := range windows {
		held += w.end.Sub(w.begin)
	}
	begin, end := samples[0].began, samples[0].began
	for _, s := range samples {
		if s.began.Before(begin) {
			begin = s.began
		}
		if s.began.After(end) {
			end = s.began
		}
		if overlaps(windows, s) {
			during = append(during, s.took)
		} else {
			without = append(without, s.took)
		}
	}
	if len(during) == 0 || len(without) == 0 {
		return fmt.Errorf("%d writes during snapshots and %d without tell nothing", len(during), len(without))
	}
	b.table.Print(figure.Figure{
		Name: "commits-during-snapshot", Unit: figure.PerSecond,
		Ours: float64(len(during)) / held.Seconds(), Peer: float64(len(without)) / (end.Sub(begin) - held).Seconds(),
	})
	b.table.Print(figure.Figure{
		Name: "write-p99-during-snapshot", Unit: figure.Seconds,
		Ours: figure.Percentile(during, 99).Seconds(), Peer: figure.Percentile(without, 99).Seconds(), Target: figure.AtMost(2),
	})
	return nil
}

// restart kills a follower and measures how long it needs to be ready again.
func (b *bench) restart(ctx context.Context, o *ocistern) error {
	var took []float64
	for range restarts {
		leader, err := o.cluster.Leader(ctx)
		if err != nil {
			return err
		}
		node := o.cluster.Nodes()[0]
		if node == leader {
			node = o.cluster.Nodes()[1]
		}
		if err := node.Kill(); err != nil {
			return err
		}
		began := time.Now()
		if err := node.Start(); err != nil {
			return err
		}
		starting, cancel := context.WithTimeout(ctx, startTime)
		err = node.AwaitReady(starting)
		cancel()
		if err != nil {
			return err
		}
		took = append(took, time.Since(began).Seconds())
		b.progress("%s was ready after %s", node.Name, time.Since(began).Round(time.Millisecond))
	}
	b.table.Print(figure.Figure{
		Name: "restart", Unit: figure.Seconds, Ours: figure.Median(took), Target: figure.AtMost(restartTarget.Seconds()),
	})
	return nil
}

// resident returns the largest memory of the nodes' processes, in bytes: what is resident and the kernel cannot take back.
// Pages of the raft log that are mapped and clean are not counted.
func resident(cluster *nodes.Cluster) (float64, error) {
	most := 0.0
	for _, node := range cluster.Running() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", node.PID()))
		if err != nil {
			return 0, fmt.Errorf("memory of %s: %w", node.Name, err)
		}
		_, rest, _ := strings.Cut(string(text), "\nRssAnon:")
		fields := strings.Fields(rest)
		if len(fields) < 2 || fields[1] != "kB" {
			return 0, fmt.Errorf("memory of %s: the kernel tells no RssAnon", node.Name)
		}
		kilobytes, err := strconv.Atoi(fields[0])
		if err != nil {
			return 0, fmt.Errorf("memory of %s: %w", node.Name, err)
		}
		most = max(most, float64(kilobytes)*1024)
	}
	return most, nil
}
