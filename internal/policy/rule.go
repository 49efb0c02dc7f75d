package policy

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// Bounds of what a rule may set.
const (
	MaxTime          = 10 * 365 * 24 * time.Hour
	MaxPrefetchDepth = 8
	MaxPrefetchBytes = 64 << 20
)

// Rule changes the policy of the repositories that it matches. What is nil stays as it is; an empty list sets none.
type Rule struct {
	// Match is a Pattern over full repository names, such as ghcr.io/org/app.
	Match string

	FreshFor, RevalidateFor, StaleFor, AbsentFor, ReferrersFreshFor *time.Duration

	// ImmutableTags are patterns, in which *, ? and [a-z] stand for what they do in a Pattern.
	ImmutableTags []string
	// PinnedTags are allowed only where Match is one repository. Each tag counts as a field of its own: a later rule that
	// pins another tag leaves it.
	PinnedTags    map[reference.Tag]digest.Digest
	PrefetchDepth *int
	PrefetchBytes *int64
}

// Validate returns an error of reason CONFIG_INVALID for a rule that a Set cannot have.
func (r *Rule) Validate() error {
	_, err := r.pattern()
	return err
}

// pattern validates the rule and returns what it matches.
func (r *Rule) pattern() (Pattern, error) {
	pattern, err := ParsePattern(r.Match)
	if err != nil {
		return pattern, err
	}
	for _, f := range fields() {
		if err := f.check(r); err != nil {
			return pattern, err
		}
	}
	for _, glob := range r.ImmutableTags {
		if checkTagPattern(glob) != nil {
			return pattern, errdef.New(errdef.ConfigInvalid, "%q is not a pattern of tags", glob).
				WithRemedy("a tag, in which * stands for any text, ? for one character, [0-9] for one of several, for example v*.*.*")
		}
	}
	if _, exact := pattern.Exact(); !exact && len(r.PinnedTags) > 0 {
		return pattern, errdef.New(errdef.ConfigInvalid, "tags are pinned for %s, which may match several repositories", pattern).
			WithRemedy("pin tags in a rule for one repository, for example ghcr.io/org/app")
	}
	for tag, dgst := range r.PinnedTags {
		_, err := reference.ParseTag(string(tag))
		if err == nil {
			_, err = reference.ParseDigest(dgst.String())
		}
		if err != nil {
			return pattern, errdef.Wrap(errdef.ConfigInvalid, err, "pinned tag")
		}
	}
	return pattern, nil
}
