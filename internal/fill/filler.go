package fill

import (
	"context"
	"time"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/policy"
	"github.com/ocistern/ocistern/internal/reference"
)

// Filler asks upstreams on behalf of the whole cluster, for the keys that this node owns. It is safe for concurrent
// use.
type Filler struct {
	FillerConfig
	upstreams map[seenBy]*upstream
	refreshes *flights[Key, catalog.LogIndex]
	contents  *flights[ContentKey, *arrival]
	proofs    *proofs
	pauses    *pauses
	later     *later
	unstated  int64 // bytes that a blob of unknown size may have
}

// seenBy names an upstream as a tenant sees it; tenant is "" for all that have no credentials of their own.
type seenBy struct {
	tenant   reference.Tenant
	upstream string
}

// NewFiller returns a Filler, or an error of reason CONFIG_INVALID when an upstream is not well configured.
func NewFiller(config FillerConfig) (*Filler, error) {
	if config.ManifestBytes == 0 {
		config.ManifestBytes = DefaultManifestBytes
	}
	if config.Policies == nil {
		config.Policies = policy.Defaults()
	}
	if config.Nodes == nil {
		config.Nodes = func() int { return 1 }
	}
	config.Timings = config.Timings.withDefaults()
	f := &Filler{
		FillerConfig: config, upstreams: map[seenBy]*upstream{}, proofs: newProofs(), pauses: newPauses(config), unstated: unstatedBytes,
		refreshes: newFlights[Key, catalog.LogIndex](), contents: newFlights[ContentKey, *arrival](), later: newLater(),
	}
	for _, given := range config.Upstreams {
		all, err := newUpstreams(given, config, f.pauses)
		if err != nil {
			return nil, err
		}
		for _, u := range all {
			name := seenBy{u.tenant, u.name}
			if _, twice := f.upstreams[name]; twice {
				return nil, errdef.New(errdef.ConfigInvalid, "upstream %s is configured twice", u.name)
			}
			f.upstreams[name] = u
		}
	}
	return f, nil
}

func (t Timings) withDefaults() Timings {
	orDefault := func(given, byDefault time.Duration) time.Duration {
		if given == 0 {
			return byDefault
		}
		return given
	}
	return Timings{
		Metadata: orDefault(t.Metadata, 20*time.Second),
		Stall:    orDefault(t.Stall, 20*time.Second),
		Publish:  orDefault(t.Publish, 10*time.Second),
	}
}

// Close stops all flights and waits for them. Later calls fail with UNAVAILABLE.
func (f *Filler) Close() {
	f.refreshes.close()
	f.contents.close()
	for _, u := range f.upstreams {
		u.close()
	}
	f.pauses.close()
}

// Mirrors tells whether a repository mirrors a configured upstream.
func (f *Filler) Mirrors(repository reference.Repository) bool {
	_, _, err := f.upstreamOf("", repository)
	return err == nil
}

// upstreamOf returns the upstream that a repository mirrors, as a tenant sees it, and the repository's name there.
func (f *Filler) upstreamOf(tenant reference.Tenant, repository reference.Repository) (*upstream, string, error) {
	host, path := repository.UpstreamHost()
	u, ok := f.upstreams[seenBy{tenant, host}]
	if !ok {
		u, ok = f.upstreams[seenBy{"", host}]
	}
	switch {
	case !ok:
		return nil, "", errdef.New(errdef.UpstreamUnknown, "%s is not a configured upstream", host).
			WithRemedy("add it to the upstreams of every node")
	case path == "":
		return nil, "", errdef.New(errdef.NameInvalid, "%q names an upstream and no repository", repository)
	}
	return u, path, nil
}

// publishAttempts is how often a command is submitted while changes of the leader leave its outcome unknown.
const publishAttempts = 3

// publish submits a command and waits until it is applied on this node too, so that the next look at the catalog
// finds it. A command of unknown outcome is submitted again: to publish one observation twice changes nothing, to drop
// it would ask the upstream again.
func (f *Filler) publish(life context.Context, command catalog.Command) (catalog.LogIndex, error) {
	ctx, cancel := context.WithTimeout(life, f.Timings.Publish)
	defer cancel()
	index, err := f.Proposer.Apply(ctx, command)
	for range publishAttempts - 1 {
		if errdef.ReasonOf(err) != errdef.OutcomeUnknown || ctx.Err() != nil {
			break
		}
		f.Logger.Info("the leader changed while a command was published, submitting it again", "error", err)
		index, err = f.Proposer.Apply(ctx, command)
	}
	if err == nil {
		_, err = f.Catalog.Wait(ctx, index)
	}
	switch {
	case err == nil:
		return index, nil
	case life.Err() != nil:
		return 0, errdef.Wrap(errdef.Unavailable, err, "this node is shutting down")
	case ctx.Err() != nil: // our own time-out, not the caller's
		return 0, errdef.Wrap(errdef.OutcomeUnknown, err, "not published within %s", f.Timings.Publish)
	}
	return 0, err
}

// absence returns the command that records a definite 404.
func (f *Filler) absence(
	tenant reference.Tenant, repository reference.Repository, kind catalog.AbsenceKind, ref string, observed time.Time,
) catalog.RecordAbsence {
	until := observed.Add(f.Policies.For(repository).AbsentFor)
	return catalog.RecordAbsence{Tenant: tenant, Repository: repository, Absences: []catalog.Absence{{
		Kind: kind, Reference: ref,
		Freshness: catalog.Freshness{Observed: observed, FreshUntil: until, StaleUntil: until},
	}}}
}

// absent returns an error of reason NOT_FOUND when a recorded absence is still believed.
func (f *Filler) absent(
	snapshot *catalog.Snapshot, tenant reference.Tenant, repository reference.Repository,
	kind catalog.AbsenceKind, ref string,
) error {
	known, ok := snapshot.Absence(tenant, repository, kind, ref)
	if !ok || !f.Clock().Before(known.Freshness.FreshUntil) {
		return nil
	}
	return errdef.New(errdef.NotFound, "the upstream of %s had no %s at %s", repository, ref,
		known.Freshness.Observed.UTC().Format(time.RFC3339))
}
