package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/ocistern/ocistern/e2e/signed"
	"github.com/ocistern/ocistern/e2e/upstream"
)

const (
	upstreamName = "up.test"
	tag          = "v1"
	signatures   = 5 // of each image: 2+3n reads
	readsOfImage = 2 + 3*signatures
)

// bench is one run.
type bench struct {
	options
	dir      string
	registry *upstream.Registry
	images   []image
	out, err io.Writer
	begun    time.Time
}

// image is one that pods are made of.
type image struct {
	repository string
	digest     digest.Digest
}

// play measures. Failing to reach a target is no error.
func (b *bench) play(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp(b.parent, "ocistern-bench-"); err != nil {
		return err
	}
	b.registry, err = upstream.Start(upstream.Options{Software: upstream.ContainerRegistry, Latency: b.clock.here(b.latency)})
	if err != nil {
		return err
	}
	if err := b.push(ctx); err != nil {
		return err
	}
	report := newReport(b)
	for _, down := range []bool{false, true} {
		report.title(down)
		for _, s := range b.systems() {
			b.progress("%s%s", s.name, map[bool]string{true: ", the registry is down for the middle third"}[down])
			done, err := b.storm(ctx, s, down)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			report.add(s.name, down, done)
		}
	}
	report.close()
	return nil
}

func (b *bench) close() error {
	var err error
	if b.registry != nil {
		err = b.registry.Close()
	}
	if b.dir != "" {
		err = errors.Join(err, os.RemoveAll(b.dir))
	}
	return err
}

func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(b.err, "%7.1fs  %s\n", time.Since(b.begun).Seconds(), fmt.Sprintf(format, args...))
}

// push fills the registry, before there is a limit.
func (b *bench) push(ctx context.Context) error {
	var signers []*signed.Signer
	for i := range signatures {
		signer, err := signed.NewSigner(fmt.Sprintf("signer %d", i+1))
		if err != nil {
			return err
		}
		signers = append(signers, signer)
	}
	b.progress("push %d images with %d signatures each", b.options.images, signatures)
	b.images = make([]image, b.options.images)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range b.images {
		group.Go(func() error {
			repository := fmt.Sprintf("fleet/app-%d", i)
			to, err := remote.NewRepository(b.registry.Host() + "/" + repository)
			if err != nil {
				return err
			}
			to.PlainHTTP, to.Client = true, http.DefaultClient
			pushed, err := signed.Push(ctx, to, signed.Image{Tag: tag, Layers: []int{1000}, Seed: uint64(i), Signers: signers})
			b.images[i] = image{repository, pushed.Digest}
			return err
		})
	}
	return group.Wait()
}
