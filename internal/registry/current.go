package registry

import (
	"context"
	"time"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/fill"
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

// current answers from the snapshot of v when it has a fresh answer, which may be an absence. Else it refreshes and
// answers from the later snapshot, moving v there. When the refresh fails it gives a known value inside its staleness
// bound, declared stale (guarantee G6), or the error; an error never becomes an absence (guarantee G5).
func current[T any](
	ctx context.Context, c *Cache, v *view, key fill.Key, look func(*view) fact[T],
) (T, Provenance, error) {
	found, now := look(v), c.Clock()
	if found.fresh(now) && (found.known || found.absent) {
		return answer(c, v, &found)
	}
	err := c.refresh(ctx, v, key, found.known, found.bridges(now))
	if err == nil {
		refreshed := look(v)
		return answer(c, v, &refreshed)
	}
	if errdef.ReasonOf(err) == errdef.NotFound || ctx.Err() != nil || !found.bridges(c.Clock()) {
		return found.value, Provenance{}, err
	}
	value, provenance, _ := answer(c, v, &found)
	provenance.Fresh, provenance.StaleReason = false, string(errdef.ReasonOf(err))
	return value, provenance, nil
}

// answer gives what the snapshot of v knows as fresh.
func answer[T any](c *Cache, v *view, f *fact[T]) (T, Provenance, error) {
	switch {
	case f.known:
		provenance := c.immutable(v, f.source)
		provenance.Observed = f.freshness.Observed
		return f.value, provenance, nil
	case f.absent:
		return f.value, Provenance{}, errdef.New(errdef.NotFound, "the upstream has no %s", v.Reference)
	default:
		return f.value, Provenance{}, errdef.New(errdef.Unavailable, "%s was removed while it was refreshed", v.Reference).
			WithRemedy("ask again")
	}
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
