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
	signers  []*signed.Signer
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
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	for i := range signatures {
		signer, err := signed.NewSigner(fmt.Sprintf("signer %d", i+1))
		if err != nil {
			return err
		}
		b.signers = append(b.signers, signer)
	}
	systems := b.systems()
	for _, s := range systems {
		s.registry, err = upstream.Start(upstream.Options{Software: upstream.ContainerRegistry, Latency: b.clock.here(b.latency)})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.registry.Close()) }()
		if err := b.push(ctx, s); err != nil {
			return err
		}
	}
	report := newReport(b)
	for _, down := range []bool{false, true} {
		done, err := b.storms(ctx, systems, down)
		if err != nil {
			return err
		}
		report.title(down)
		for i, s := range systems {
			report.add(s.name, down, done[i])
		}
	}
	report.close()
	return nil
}

// storms lets the same storm come over all systems at the same time.
func (b *bench) storms(ctx context.Context, systems []*system, down bool) ([]measured, error) {
	done := make([]measured, len(systems))
	group, ctx := errgroup.WithContext(ctx)
	for i, s := range systems {
		b.progress("%s%s", s.name, map[bool]string{true: ", the registry is down for the middle third"}[down])
		group.Go(func() (err error) {
			if done[i], err = b.storm(ctx, s, down); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			return nil
		})
	}
	return done, group.Wait()
}

func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(b.err, "%7.1fs  %s\n", time.Since(b.begun).Seconds(), fmt.Sprintf(format, args...))
}

// push fills the registry of a system, before there is a limit. Equal seeds make equal images; their signatures differ.
func (b *bench) push(ctx context.Context, s *system) error {
	b.progress("%s: push %d images with %d signatures each", s.name, b.options.images, signatures)
	b.images = make([]image, b.options.images)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range b.images {
		group.Go(func() error {
			repository := fmt.Sprintf("fleet/app-%d", i)
			to, err := remote.NewRepository(s.registry.Host() + "/" + repository)
			if err != nil {
				return err
			}
			to.PlainHTTP, to.Client = true, http.DefaultClient
			pushed, err := signed.Push(ctx, to, signed.Image{Tag: tag, Layers: []int{1000}, Seed: uint64(i), Signers: b.signers})
			b.images[i] = image{repository, pushed.Digest}
			return err
		})
	}
	return group.Wait()
}
