package registry

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/policy"
)

// Steward answers those who have to explain or to correct what verifiers are told about mirrored names. It is safe for
// concurrent use.
type Steward struct {
	StewardConfig
}

// StewardConfig is what a Steward works with; all of it.
type StewardConfig struct {
	Cache     *Cache
	Policies  *policy.Set
	Proposer  Proposer
	Followers Followers
}

// Proposer submits a command to the replicated log and returns the index of its entry after commit.
type Proposer interface {
	Apply(ctx context.Context, command catalog.Command) (catalog.LogIndex, error)
}

// Followers waits for the other nodes.
type Followers interface {
	// Lagging waits until every node that may answer callers has applied an index, and returns the names of those that have
	// not said so when ctx ends.
	Lagging(ctx context.Context, index catalog.LogIndex) []string
}

// confirmWait is how long an invalidation waits for the nodes, so that a caller learns of one that does not answer.
const confirmWait = 10 * time.Second

// MaxScopes bounds one call of Invalidate.
const MaxScopes = 1000

// Invalidated is the answer of Invalidate.
type Invalidated struct {
	// Index is where the last of it stands in the log.
	Index catalog.LogIndex
	// Lagging names the nodes that have not confirmed it: they may still answer with what they knew.
	Lagging []string
}

// Invalidate makes names be asked about at their upstreams before they are answered again, on every node: neither fresh nor
// stale answers are left, whatever was under way. When it returns, all nodes have it, except those that the answer names.
// It may be repeated. It fails with UPSTREAM_UNKNOWN for a repository without a configured upstream, and as
// Cluster.Apply does; then part of it may have been done.
func (s *Steward) Invalidate(ctx context.Context, principal Principal, scopes []Scope) (Invalidated, error) {
	if len(scopes) == 0 || len(scopes) > MaxScopes {
		return Invalidated{}, errdef.New(errdef.UsageInvalid, "%d names to invalidate", len(scopes)).WithRemedy("1 to %d", MaxScopes)
	}
	var commands []catalog.Invalidate
	for _, scope := range scopes {
		command, err := scope.command(principal.Tenant)
		if err != nil {
			return Invalidated{}, err
		}
		if !s.mirrors(scope) {
			return Invalidated{}, upstreamUnknown(scope.Repository)
		}
		commands = append(commands, command)
	}
	if level := s.Cache.Catalog.Snapshot().FeatureLevel(); level < catalog.LevelRequests {
		return Invalidated{}, errdef.New(errdef.Unsupported, "the cluster is at feature level %d, invalidations need %d",
			level, catalog.LevelRequests).WithRemedy("update all nodes; see what holds the level back: ocistern status")
	}
	var done Invalidated
	for _, command := range commands {
		index, err := s.Proposer.Apply(ctx, command)
		if err != nil {
			return Invalidated{}, err
		}
		done.Index = max(done.Index, index)
	}
	ctx, cancel := context.WithTimeout(ctx, confirmWait)
	defer cancel()
	done.Lagging = s.Followers.Lagging(ctx, done.Index)
	return done, nil
}

// mirrors tells whether a scope is inside a configured upstream; the name of the upstream alone is, for what is below it.
func (s *Steward) mirrors(scope Scope) bool {
	return s.Cache.Fill.Mirrors(scope.Repository) || scope.Below && s.Cache.Fill.Mirrors(scope.Repository+"/x")
}

// Event is one move of a tag.
type Event struct {
	Time time.Time // by the clock of the node that learned it
	// From and To are empty where the tag was not known, or was absent at its upstream.
	From, To digest.Digest
	// Back tells that the tag has pointed at To before.
	Back bool
	// Node is the id of the node that learned it, empty where that was not recorded.
	Node  catalog.NodeID
	Index catalog.LogIndex // of the entry
}

// History is the answer of History.
type History struct {
	Events []Event // oldest first
	// Source tells who says where the tag points.
	Source catalog.Source
	// Truncated tells that older events were dropped.
	Truncated bool
	Index     catalog.LogIndex
}

// History returns how a tag came to point where it does. It fails with NOT_FOUND for a tag that was never seen.
func (s *Steward) History(ctx context.Context, principal Principal, target Target) (History, error) {
	v, err := s.Cache.begin(ctx, principal, target)
	if err != nil {
		return History{}, err
	}
	if v.Tag == "" {
		return History{}, errdef.New(errdef.UsageInvalid, "%s has no tag", v.Reference).WithRemedy("only tags have a history: REPOSITORY:TAG")
	}
	moves := v.snapshot.History(v.tenant, v.Repository, v.Tag)
	if len(moves) == 0 {
		return History{}, errdef.New(errdef.NotFound, "the cluster has never seen %s", v.Reference).
			WithRemedy("ask for it first: ocistern resolve %s", v.Reference)
	}
	history := History{Source: s.Cache.sourceOf(v.Repository), Truncated: len(moves) > catalog.MaxTagHistory, Index: v.snapshot.Index()}
	if tag, ok := v.snapshot.Tag(v.tenant, v.Repository, v.Tag); ok {
		history.Source = tag.Source
	}
	seen, from := map[digest.Digest]bool{}, digest.Digest("")
	for _, move := range moves {
		history.Events = append(history.Events, Event{
			Time: move.Since, From: from, To: move.Digest, Back: move.Digest != "" && seen[move.Digest], Node: move.By, Index: move.Revision,
		})
		seen[move.Digest], from = true, move.Digest
	}
	return history, nil
}

// Explanation is the answer of Explain.
type Explanation struct {
	// Fields is the policy of the repository: each value, and the rule it comes from.
	Fields []policy.Field
	// Freshness is what the catalog knows of the tag or of the referrers of the digest; Known tells whether it knows anything.
	Known     bool
	Freshness catalog.Freshness
	// Decision is what a caller would be told now, in words.
	Decision string
	// Backoff is until when the upstream is not to be asked; zero for no backoff.
	Backoff catalog.Backoff
	Index   catalog.LogIndex
}

// Explain tells by which rules a reference is answered, and what would be done now. It asks no upstream. It fails with
// UPSTREAM_UNKNOWN for a repository that mirrors none.
func (s *Steward) Explain(ctx context.Context, principal Principal, target Target) (Explanation, error) {
	v, err := s.Cache.begin(ctx, principal, target)
	if err != nil {
		return Explanation{}, err
	}
	if !s.Cache.Fill.Mirrors(v.Repository) {
		return Explanation{}, upstreamUnknown(v.Repository)
	}
	explained := Explanation{Fields: s.Policies.Explain(v.Repository), Index: v.snapshot.Index()}
	now := s.Cache.Clock()
	upstream, _ := v.Repository.UpstreamHost()
	if backoff, ok := v.snapshot.Backoff(upstream); ok && now.Before(backoff.Until) {
		explained.Backoff = backoff
	}
	if v.Tag != "" {
		s.explainTag(&explained, &v, now)
	} else {
		s.explainReferrers(&explained, &v, now)
	}
	return explained, nil
}

func (s *Steward) explainTag(e *Explanation, v *view, now time.Time) {
	tag := v.lookTag()
	e.Known, e.Freshness = tag.known || tag.absent, tag.freshness
	_, pinned := s.Policies.Pinned(v.Repository, v.Tag)
	rules := s.Policies.For(v.Repository)
	switch {
	case pinned:
		e.Decision = "pinned by the policy: always answered with that digest, the upstream's tag is not asked for"
	case tag.known && tag.source == catalog.SourcePushed:
		e.Decision = "pushed here: answered, no upstream is asked"
	case tag.known && rules.IsImmutable(v.Tag):
		e.Decision = "immutable by the policy: answered, the upstream is not asked again"
	case tag.absent && tag.fresh(now):
		e.Decision = "absent: answered as not found, the upstream is not asked"
	default:
		e.Decision = s.decision(tag.known, tag.freshness, now, rules.RevalidateFor)
	}
}

func (s *Steward) explainReferrers(e *Explanation, v *view, now time.Time) {
	list := v.lookReferrers()
	e.Known, e.Freshness = list.known, list.freshness
	e.Decision = s.decision(list.known, list.freshness, now, s.Policies.For(v.Repository).RevalidateFor)
}

func (s *Steward) decision(known bool, f catalog.Freshness, now time.Time, revalidate time.Duration) string {
	switch {
	case !known:
		return "not known: the upstream is asked first, and its failure is the answer"
	case now.Before(f.FreshUntil):
		return "fresh: answered, the upstream is not asked"
	case !now.Before(f.StaleUntil):
		return "too old: the upstream is asked first, and its failure is the answer"
	case now.Before(f.FreshUntil.Add(revalidate)):
		return "answered at once, declared stale, while the upstream is asked in the background"
	default:
		return "the upstream is asked first; if it fails, answered from here, declared stale"
	}
}
