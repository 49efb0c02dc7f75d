package registry

import (
	"context"
	"time"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/fill"
	"github.com/ocistern/ocistern/internal/reference"
)

// fact is what one snapshot knows about something mutable: a tag, or a referrers list.
type fact[T any] struct {
	value     T
	known     bool
	absent    bool // the upstream said 404; freshness bounds that answer
	source    catalog.Source
	freshness catalog.Freshness
}

func (f *fact[T]) fresh(now time.Time) bool {
	return f.source == catalog.SourcePushed || now.Before(f.freshness.FreshUntil)
}

// bridges tells whether a known value may still be given when the upstream cannot be asked.
func (f *fact[T]) bridges(now time.Time) bool { return f.known && now.Before(f.freshness.StaleUntil) }

// current answers from the snapshot of v when it has an answer that needs no question, which may be an absence. Else it
// refreshes and answers from the later snapshot, moving v there. When the refresh fails it gives a known value inside its
// staleness bound, declared stale (guarantee G6), or the error; an error never becomes an absence (guarantee G5).
func current[T any](
	ctx context.Context, c *Cache, v *view, key fill.Key, look func(*view) fact[T],
) (T, Provenance, error) {
	found := look(v)
	if why := atOnce(c, key, &found); why != "" {
		return answer(c, v, key, &found, why)
	}
	err := c.refresh(ctx, v, key, found.known, found.bridges(c.Clock()))
	if err == nil {
		refreshed := look(v)
		return answer(c, v, key, &refreshed, WhyFresh)
	}
	if errdef.ReasonOf(err) == errdef.NotFound || ctx.Err() != nil || !found.bridges(c.Clock()) {
		return found.value, Provenance{}, err
	}
	return answer(c, v, key, &found, Why(errdef.ReasonOf(err)))
}

// atOnce returns why a fact, or an absence, is answered without asking the upstream first; empty when it must be asked.
func atOnce[T any](c *Cache, key fill.Key, f *fact[T]) Why {
	now := c.Clock()
	if f.fresh(now) && (f.known || f.absent) {
		return WhyFresh
	}
	if !f.known { // or invalidated
		return ""
	}
	policy := c.Policies.For(key.Repository)
	if key.Kind == fill.KindTag && policy.IsImmutable(reference.Tag(key.Reference)) {
		return WhyImmutable
	}
	if f.bridges(now) && now.Before(f.freshness.FreshUntil.Add(policy.RevalidateFor)) && c.Fill.Mirrors(key.Repository) {
		return WhyRevalidating
	}
	return ""
}

// answer gives what the snapshot of v knows. What is revalidating begins to be renewed here, in the background.
func answer[T any](c *Cache, v *view, key fill.Key, f *fact[T], why Why) (T, Provenance, error) {
	if !f.known {
		if f.absent {
			return f.value, Provenance{}, errdef.New(errdef.NotFound, "the upstream has no %s", v.Reference)
		}
		return f.value, Provenance{}, errdef.New(errdef.Unavailable, "%s was removed while it was refreshed", v.Reference).
			WithRemedy("ask again")
	}
	if f.source == catalog.SourcePushed {
		why = WhyPushed
	}
	provenance := c.immutable(v, f.source)
	provenance.Why, provenance.Observed = why, f.freshness.Observed
	if !provenance.Observed.IsZero() {
		provenance.Age = max(0, c.Clock().Sub(provenance.Observed))
	}
	switch why {
	case WhyFresh, WhyPushed, WhyImmutable:
	case WhyRevalidating:
		provenance.Fresh, provenance.StaleReason = false, staleRevalidating
		c.revalidations.start(key, v.snapshot.Index())
	default: // the reason of a failure
		provenance.Fresh, provenance.StaleReason = false, string(why)
	}
	return f.value, provenance, nil
}

// refresh makes the owner of key ask the upstream and moves v to a snapshot that has seen the outcome. A caller that
// can be given a stale answer does not wait longer than RefreshWait; the fill goes on without it.
func (c *Cache) refresh(ctx context.Context, v *view, key fill.Key, known, bridged bool) error {
	if !c.Fill.Mirrors(v.Repository) {
		if known { // mirrored once, by an upstream that is no longer configured
			return upstreamUnknown(v.Repository)
		}
		return missing(v.Reference)
	}
	if bridged {
		bounded, cancel := context.WithTimeout(ctx, c.RefreshWait)
		defer cancel()
		ctx = bounded
	}
	v.filled = true
	index, err := c.Fill.Refresh(ctx, key, v.snapshot.Index())
	if err != nil {
		return err
	}
	snapshot, err := c.Catalog.Wait(ctx, index)
	if err != nil {
		return err
	}
	v.snapshot = snapshot
	return nil
}
