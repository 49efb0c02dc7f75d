package fill

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// tagFlight is one refresh of a tag.
type tagFlight struct {
	key      Key
	tag      reference.Tag
	upstream *upstream
	path     string
	seen     catalog.LogIndex // that may be stated
}

// refreshTag asks whether a tag still points where the catalog has it, by HEAD: registries count and throttle it less. Where
// it has moved, and where HEAD says nothing, the manifest is fetched.
func (f *Filler) refreshTag(life context.Context, t *tagFlight) (catalog.LogIndex, error) {
	observed := f.Clock() // before asking: the answer is at least as new
	ctx, cancel := context.WithTimeout(life, f.Timings.Metadata)
	defer cancel()
	known, told, err := f.revalidate(ctx, t)
	switch {
	case err != nil:
		return 0, err
	case told != "" && told == known.Descriptor.Digest:
		return f.publish(life, catalog.Publish{
			Tenant: t.key.Tenant, Repository: t.key.Repository, Source: catalog.SourceUpstream, Time: observed, Holder: f.Self, Seen: t.seen,
			Tags: []catalog.TagUpdate{{Name: t.tag, Descriptor: known.Descriptor, Freshness: f.freshness(t.key, observed)}},
		})
	}
	index, got, err := f.fetchTag(ctx, life, t, observed)
	if err == nil && told != "" && told != got && got == known.Descriptor.Digest {
		t.upstream.distrustHEAD(f.Clock())
		f.Logger.Warn("an upstream's HEAD contradicts its GET and is not asked for a while", "upstream", t.upstream.name,
			"repository", t.key.Repository, "tag", t.tag)
	}
	return index, err
}

// revalidate returns the tag as it is known and where the upstream says, by HEAD, that it points; an empty digest when that
// is to be found out by GET. An error tells that asking by GET would be no better.
func (f *Filler) revalidate(ctx context.Context, t *tagFlight) (known catalog.Tag, told digest.Digest, err error) {
	snapshot := f.Catalog.Snapshot()
	known, ok := snapshot.Tag(t.key.Tenant, t.key.Repository, t.tag)
	invalidated := known.Freshness == catalog.Freshness{} // most likely it has moved, and two requests would be one too many
	if !ok || invalidated || !t.upstream.trustsHEAD(f.Clock()) {
		return known, "", nil
	}
	blob, _ := snapshot.Blob(known.Descriptor.Digest)
	_, parsed := snapshot.Manifest(t.key.Tenant, t.key.Repository, known.Descriptor.Digest)
	if !parsed || len(blob.Holders) == 0 { // then the bytes are wanted anyway
		return known, "", nil
	}
	told, err = t.upstream.head(ctx, t.path, t.tag)
	switch errdef.ReasonOf(err) {
	case errdef.UpstreamThrottled, errdef.UpstreamUnavailable, errdef.UpstreamTimeout, errdef.Unavailable, errdef.Deadline, errdef.Canceled:
		return known, "", err
	}
	return known, told, nil // whatever else it says, a 404 too, GET has the last word
}

// fetchTag asks by GET, keeps the manifest and publishes where the tag points.
func (f *Filler) fetchTag(ctx, life context.Context, t *tagFlight, observed time.Time) (catalog.LogIndex, digest.Digest, error) {
	desc, body, err := t.upstream.manifest(ctx, t.path, string(t.tag))
	if errdef.ReasonOf(err) == errdef.NotFound {
		absence := f.absence(t.key.Tenant, t.key.Repository, catalog.AbsentTag, t.key.Reference, observed)
		absence.Seen = t.seen
		if _, failed := f.publish(life, absence); failed != nil {
			return 0, "", errdef.Wrap(errdef.ReasonOf(failed), failed, "cannot record that upstream %s has no tag %s", t.upstream.name, t.tag)
		}
	}
	if err != nil {
		return 0, "", err
	}
	manifest, err := parseManifest(desc, body)
	if err != nil {
		return 0, "", errdef.Wrap(errdef.ReasonOf(err), err, "upstream %s, tag %s", t.upstream.name, t.tag)
	}
	if err := f.keep(desc, body); err != nil {
		return 0, "", err
	}
	command := f.published(t.key.Tenant, t.key.Repository, desc, observed)
	command.Seen, command.Manifests = t.seen, []catalog.Manifest{manifest}
	command.Tags = []catalog.TagUpdate{{Name: t.tag, Descriptor: desc, Freshness: f.freshness(t.key, observed)}}
	index, err := f.publish(life, command)
	return index, desc.Digest, err
}
