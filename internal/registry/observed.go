package registry

import (
	"context"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// Observation is one finished call.
type Observation struct {
	// API names the use case: resolve, manifest, blob, referrers or tags.
	API string
	// Repository that was asked. There is no end of them: not for the labels of a metric.
	Repository reference.Repository
	// Source tells what the answer took: "catalog" (nobody was asked), "revalidating" (somebody is, in the background), "fill",
	// "stale" (a fill failed), or "none".
	Source string
	// Result is "ok" or the reason of failure.
	Result string
	// Took is the time until the answer; for a blob, until its first byte could be read.
	Took time.Duration
}

// Observer is told of every finished call, while the caller waits: it must be cheap and safe for concurrent use.
type Observer func(Observation)

// Observed returns next with each of its calls reported to observe.
func Observed(next Registry, observe Observer) Registry {
	return &observed{next: next, observe: observe}
}

type observed struct {
	next    Registry
	observe Observer
}

// ObservedKnown is Observed for Known: each answer is reported as a call of resolve.
func ObservedKnown(next Known, observe Observer) Known {
	return &observedKnown{next: next, observe: observe}
}

type observedKnown struct {
	next    Known
	observe Observer
}

func (o *observedKnown) ResolveKnown(
	ctx context.Context, principal Principal, target Target, names []reference.Reference,
) ([]Resolved, error) {
	start := time.Now()
	answers, err := o.next.ResolveKnown(ctx, principal, target, names)
	for i, name := range names {
		target.Reference = name
		switch {
		case err != nil:
			o.observe.finish("resolve", target, start, nil, err)
		case answers[i].Descriptor.Digest != "": // the others are asked for with Resolve
			o.observe.finish("resolve", target, start, &answers[i].Provenance, nil)
		}
	}
	return answers, err
}

func (o Observer) finish(api string, target Target, start time.Time, provenance *Provenance, err error) {
	seen := Observation{
		API: api, Repository: target.Reference.Repository, Source: "catalog", Result: "ok", Took: time.Since(start),
	}
	switch {
	case err != nil:
		seen.Source, seen.Result = "none", string(errdef.ReasonOf(err))
	case provenance.Why == WhyRevalidating:
		seen.Source = "revalidating"
	case provenance.Filled && !provenance.Fresh:
		seen.Source = "stale"
	case provenance.Filled:
		seen.Source = "fill"
	}
	o(seen)
}

func (o *observed) Resolve(ctx context.Context, principal Principal, target Target) (Resolved, error) {
	start := time.Now()
	answer, err := o.next.Resolve(ctx, principal, target)
	o.observe.finish("resolve", target, start, &answer.Provenance, err)
	return answer, err
}

func (o *observed) FetchManifest(ctx context.Context, principal Principal, target Target) (Manifest, error) {
	start := time.Now()
	answer, err := o.next.FetchManifest(ctx, principal, target)
	o.observe.finish("manifest", target, start, &answer.Provenance, err)
	return answer, err
}

func (o *observed) FetchBlob(ctx context.Context, principal Principal, target Target, offset int64) (*Blob, error) {
	start := time.Now()
	answer, err := o.next.FetchBlob(ctx, principal, target, offset)
	var provenance Provenance
	if err == nil {
		provenance = answer.Provenance
	}
	o.observe.finish("blob", target, start, &provenance, err)
	return answer, err
}

func (o *observed) Referrers(
	ctx context.Context, principal Principal, target Target, artifactType string,
) (Referrers, error) {
	start := time.Now()
	answer, err := o.next.Referrers(ctx, principal, target, artifactType)
	o.observe.finish("referrers", target, start, &answer.Provenance, err)
	return answer, err
}

func (o *observed) Tags(
	ctx context.Context, principal Principal, target Target, last reference.Tag, limit int,
) (TagPage, error) {
	start := time.Now()
	answer, err := o.next.Tags(ctx, principal, target, last, limit)
	o.observe.finish("tags", target, start, &answer.Provenance, err)
	return answer, err
}
