package config

import (
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/policy"
	"github.com/ocistern/ocistern/internal/reference"
)

// policies has the keys in the order and with the names that policy.Set.Explain uses.
func policies() *structure {
	times := period(policy.MaxTime)
	return structureOf("policies", "policy", []column[policy.Rule]{
		{name: "match", must: true, doc: "repositories, such as ghcr.io/org/app, ghcr.io/org/* or ghcr.io/**",
			set: into(match, func(r *policy.Rule) *string { return &r.Match })},
		{name: "fresh-for", doc: "time for which a tag is not asked again (default 5m)",
			set: given(times, func(r *policy.Rule) **time.Duration { return &r.FreshFor })},
		{name: "revalidate-for", doc: "time after that in which an old answer is given at once, and renewed (default 1m)",
			set: given(times, func(r *policy.Rule) **time.Duration { return &r.RevalidateFor })},
		{name: "stale-for", doc: "time after fresh-for in which an old answer bridges an outage (default 24h)",
			set: given(times, func(r *policy.Rule) **time.Duration { return &r.StaleFor })},
		{name: "absent-for", doc: "time for which a 404 is believed (default 10s)",
			set: given(times, func(r *policy.Rule) **time.Duration { return &r.AbsentFor })},
		{name: "referrers-fresh-for", doc: "fresh-for of referrers lists (default 5m)",
			set: given(times, func(r *policy.Rule) **time.Duration { return &r.ReferrersFreshFor })},
		{name: "immutable-tags", list: true, doc: "patterns of tags that never move, such as v*.*.*: known once, never asked again",
			set: into(tagPatterns, func(r *policy.Rule) *[]string { return &r.ImmutableTags })},
		{name: "pinned-tags", list: true, doc: "TAG=DIGEST of tags that are frozen, where match is one repository",
			set: into(pins, func(r *policy.Rule) *map[reference.Tag]digest.Digest { return &r.PinnedTags })},
		{name: "prefetch-depth", doc: "0 fetches nothing ahead, 1 referrers, 2 theirs too, and so on (default 2)",
			set: given(wholeNumber(0, policy.MaxPrefetchDepth), func(r *policy.Rule) **int { return &r.PrefetchDepth })},
		{name: "prefetch-bytes", doc: "size of the largest object that is fetched ahead (default 256KiB)",
			set: given(byteSize(0, policy.MaxPrefetchBytes), func(r *policy.Rule) **int64 { return &r.PrefetchBytes })},
	}, addPolicy)
}

// addPolicy refuses a rule that can never apply: a tag that somebody believes to be pinned would follow its upstream.
func addPolicy(c *Config, item Item, rule policy.Rule) error {
	if err := rule.Validate(); err != nil {
		return item.located(err)
	}
	pattern, err := policy.ParsePattern(rule.Match)
	if err != nil {
		return item.located(err)
	}
	if !slices.ContainsFunc(c.Upstreams, func(u Upstream) bool { return pattern.Covers(u.Name) }) {
		return item.wrong("a policy is for %q, which no repository of a configured upstream can match", rule.Match).
			WithRemedy("begin it with the name of one of upstreams, for example ghcr.io/**, or with **/")
	}
	c.Policies = append(c.Policies, rule)
	return nil
}

func match(v Value) (string, error) {
	if _, err := policy.ParsePattern(v.Texts[0]); err != nil {
		return "", v.invalid("is not a pattern of repository names").WithRemedy("for example ghcr.io/org/app, ghcr.io/org/* or ghcr.io/**")
	}
	return v.Texts[0], nil
}

// tagPatterns keeps an empty list apart from none: it takes back what a rule before has set.
func tagPatterns(v Value) ([]string, error) {
	for _, text := range v.Texts {
		if err := (&policy.Rule{Match: "**", ImmutableTags: []string{text}}).Validate(); err != nil {
			return nil, v.invalid("has %q, which is not a pattern of tags", shown(text)).
				WithRemedy("a tag, in which * stands for any text and [0-9] for one digit, for example v*.*.*")
		}
	}
	return append([]string{}, v.Texts...), nil
}

func pins(v Value) (map[reference.Tag]digest.Digest, error) {
	pinned := map[reference.Tag]digest.Digest{}
	for _, text := range v.Texts {
		tagText, digestText, _ := strings.Cut(text, "=")
		tag, err := reference.ParseTag(tagText)
		if err != nil {
			return nil, v.invalid("has %q, which pins no tag", shown(text)).WithRemedy("TAG=DIGEST, for example v1=sha256:...")
		}
		dgst, err := reference.ParseDigest(digestText)
		if err != nil {
			return nil, v.invalid("pins %s to no digest", tag).WithRemedy("TAG=DIGEST: sha256: and 64 hexadecimal characters")
		}
		if _, twice := pinned[tag]; twice {
			return nil, v.invalid("pins %s twice", tag).WithRemedy("keep one of them")
		}
		pinned[tag] = dgst
	}
	return pinned, nil
}
