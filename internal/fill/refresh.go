package fill

import (
	"context"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// Refresh asks the upstream for a tag or a referrers list, once for all callers, publishes the answer and returns the
// catalog index at which it can be read. seen is the index at which the caller found the fact missing or no longer
// fresh: when this node's catalog is newer and has it fresh, the upstream is not asked.
//
// It fails with NOT_FOUND only after a definite 404, which is recorded; with an UPSTREAM_* reason,
// MANIFEST_TOO_LARGE, MANIFEST_INVALID, MEDIA_TYPE_INVALID or DIGEST_MISMATCH when the upstream gave no valid answer,
// which records nothing; with NO_QUORUM or OUTCOME_UNKNOWN when the answer could not be published, since a tag must
// mean the same on all nodes.
func (f *Filler) Refresh(ctx context.Context, key Key, seen catalog.LogIndex) (catalog.LogIndex, error) {
	u, path, err := f.upstreamOf(key.Tenant, key.Repository)
	if err != nil {
		return 0, err
	}
	ask, err := f.asks(key)
	if err != nil {
		return 0, err
	}
	if err := f.catchUp(ctx, seen); err != nil {
		return 0, err
	}
	for {
		index, joined, err := f.refreshes.join(ctx, key,
			func(life context.Context, _ pilot[catalog.LogIndex]) (catalog.LogIndex, error) {
				if index, err := f.fresh(key, seen); index > 0 || err != nil {
					f.Observer.Avoided(u.name)
					return index, err
				}
				return f.askAnew(life, key, func(seen catalog.LogIndex) (catalog.LogIndex, error) { return ask(life, u, path, seen) })
			})
		if joined {
			f.Observer.Avoided(u.name)
		}
		if joined && err == nil && index <= seen {
			continue // the flight only looked into a catalog that this caller has seen already
		}
		return index, err
	}
}

// maxInvalidated is how often an answer may be invalidated while it is on its way.
const maxInvalidated = 3

// askAnew asks again when what the upstream has said was invalidated while it was under way. ask is told what the catalog
// had seen before.
func (f *Filler) askAnew(
	life context.Context, key Key, ask func(seen catalog.LogIndex) (catalog.LogIndex, error),
) (catalog.LogIndex, error) {
	for range maxInvalidated {
		seen := f.Catalog.Snapshot().Index()
		index, err := ask(seen)
		heard := err == nil || errdef.ReasonOf(err) == errdef.NotFound
		if !heard || life.Err() != nil || !f.Catalog.Snapshot().Invalidated(key.Tenant, key.Repository, seen) {
			return index, err
		}
	}
	return 0, errdef.New(errdef.Unavailable, "%s is invalidated faster than its upstream answers", key.Repository).WithRemedy("ask again")
}

// stated is what a command may say of the index that was seen: nothing, below the feature level that brought it.
func (f *Filler) stated(seen catalog.LogIndex) catalog.LogIndex {
	if f.Catalog.Snapshot().FeatureLevel() < catalog.LevelRequests {
		return 0
	}
	return seen
}

// catchUp waits until this node has seen what the caller has. One that cannot is no owner: the next in rank may be.
func (f *Filler) catchUp(ctx context.Context, seen catalog.LogIndex) error {
	bounded, cancel := context.WithTimeout(ctx, f.Timings.Publish)
	defer cancel()
	_, err := f.Catalog.Wait(bounded, seen)
	if err != nil && ctx.Err() == nil {
		return errdef.Wrap(errdef.Unavailable, err, "this node lags behind")
	}
	return err
}

// ask is how one kind of key asks its upstream and publishes the answer. seen is what the catalog had seen before.
type ask func(life context.Context, u *upstream, path string, seen catalog.LogIndex) (catalog.LogIndex, error)

func (f *Filler) asks(key Key) (ask, error) {
	switch key.Kind {
	case KindTag:
		tag, err := reference.ParseTag(key.Reference)
		return func(life context.Context, u *upstream, path string, seen catalog.LogIndex) (catalog.LogIndex, error) {
			return f.refreshTag(life, &tagFlight{key: key, tag: tag, upstream: u, path: path, seen: f.stated(seen)})
		}, err
	case KindReferrers:
		_, err := reference.ParseDigest(key.Reference)
		return func(life context.Context, u *upstream, path string, seen catalog.LogIndex) (catalog.LogIndex, error) {
			return f.refreshReferrers(life, u, path, key, f.stated(seen))
		}, err
	}
	return nil, errdef.New(errdef.Internal, "a key of kind %d cannot be refreshed", key.Kind)
}

// fresh looks for a fresh answer in a catalog that is newer than seen. It returns 0 and no error when there is none.
func (f *Filler) fresh(key Key, seen catalog.LogIndex) (catalog.LogIndex, error) {
	snapshot := f.Catalog.Snapshot()
	if snapshot.Index() <= seen {
		return 0, nil
	}
	var freshness catalog.Freshness
	pushed := false
	switch key.Kind {
	case KindTag:
		tag, _ := snapshot.Tag(key.Tenant, key.Repository, reference.Tag(key.Reference))
		freshness, pushed = tag.Freshness, tag.Source == catalog.SourcePushed
		if err := f.absent(snapshot, key.Tenant, key.Repository, catalog.AbsentTag, key.Reference); err != nil {
			return 0, err
		}
	case KindReferrers:
		list, _ := snapshot.Referrers(key.Tenant, key.Repository, key.subject())
		freshness = list.Freshness
	}
	if pushed || f.Clock().Before(freshness.FreshUntil) {
		return snapshot.Index(), nil
	}
	return 0, nil
}

// keep makes a verified manifest durable on this node.
func (f *Filler) keep(desc ocispec.Descriptor, body []byte) error {
	if _, ok := f.Store.Stat(desc.Digest); ok {
		return nil // its tag was asked for before
	}
	in, err := f.Store.Begin(desc)
	if err != nil {
		return err
	}
	defer in.Abort(nil)
	if _, err := in.Write(body); err != nil {
		return err
	}
	if err := in.Verify(); err != nil {
		return err
	}
	return in.Persist()
}

func (f *Filler) refreshReferrers(
	life context.Context, u *upstream, path string, key Key, seen catalog.LogIndex,
) (catalog.LogIndex, error) {
	observed := f.Clock()
	ctx, cancel := context.WithTimeout(life, f.Timings.Metadata)
	defer cancel()
	list, err := u.referrers(ctx, path, key.subject())
	if err == nil {
		err = f.ofSubject(key, list)
	}
	if err != nil {
		return 0, err
	}
	return f.publish(life, catalog.Publish{
		Tenant: key.Tenant, Repository: key.Repository, Source: catalog.SourceUpstream, Time: observed, Holder: f.Self,
		Referrers: []catalog.Referrers{{
			Subject: key.subject(), Descriptors: list, Freshness: f.freshness(key, observed),
		}},
		Seen: seen,
	})
}

// ofSubject refuses a list with a manifest that is known to have another subject. Those that are not known are read by the
// verifier, who looks for himself.
func (f *Filler) ofSubject(key Key, list []ocispec.Descriptor) error {
	snapshot := f.Catalog.Snapshot()
	for _, desc := range list {
		known, ok := snapshot.Manifest(key.Tenant, key.Repository, desc.Digest)
		if ok && known.Subject != "" && known.Subject != key.subject() {
			return errdef.New(errdef.UpstreamInvalid, "the upstream of %s lists %s as a referrer of %s, and it is one of %s",
				key.Repository, desc.Digest, key.Reference, known.Subject)
		}
	}
	return nil
}

// published returns the command that publishes content which is durable on this node.
func (f *Filler) published(
	tenant reference.Tenant, repository reference.Repository, desc ocispec.Descriptor, observed time.Time,
) catalog.Publish {
	return catalog.Publish{
		Tenant: tenant, Repository: repository, Source: catalog.SourceUpstream, Time: observed, Holder: f.Self,
		Blobs: []ocispec.Descriptor{desc},
	}
}

// freshness bounds the use of an answer by the policy of its repository.
func (f *Filler) freshness(key Key, observed time.Time) catalog.Freshness {
	p := f.Policies.For(key.Repository)
	freshFor := p.FreshFor
	if key.Kind == KindReferrers {
		freshFor = p.ReferrersFreshFor
	}
	until := observed.Add(freshFor)
	return catalog.Freshness{Observed: observed, FreshUntil: until, StaleUntil: until.Add(p.StaleFor)}
}
