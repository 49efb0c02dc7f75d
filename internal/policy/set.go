package policy

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// maxRemembered bounds the repositories whose policy is remembered. To forget one costs a look at all rules.
const maxRemembered = 4096

// Set is an ordered list of rules over the default: all rules that match a repository apply, in their order, so that the
// last one that sets a field wins. It never changes and is safe for concurrent use.
type Set struct {
	rules     []matcher
	byDefault Policy
	pins      map[pin]digest.Digest

	// mu guards remembered.
	mu         sync.RWMutex
	remembered map[reference.Repository]*Policy
}

// matcher is a rule with its pattern.
type matcher struct {
	Rule
	pattern Pattern
}

type pin struct {
	repository reference.Repository
	tag        reference.Tag
}

// Defaults returns the Set without rules.
func Defaults() *Set {
	return &Set{byDefault: Default(), pins: map[pin]digest.Digest{}, remembered: map[reference.Repository]*Policy{}}
}

// NewSet returns the Set of some rules, or an error of reason CONFIG_INVALID that names the rule which is wrong.
func NewSet(rules []Rule) (*Set, error) {
	s := Defaults()
	for i, rule := range rules {
		pattern, err := rule.pattern()
		if err != nil {
			return nil, errdef.Wrap(errdef.ConfigInvalid, err, "policy %s", named(i, rule.Match))
		}
		s.rules = append(s.rules, matcher{rule, pattern})
		repository, _ := pattern.Exact()
		for tag, dgst := range rule.PinnedTags {
			s.pins[pin{repository, tag}] = dgst
		}
	}
	return s, nil
}

// named is how a rule is called in errors and explanations; the first is number 1.
func named(i int, match string) string { return fmt.Sprintf("rule %d (%s)", i+1, match) }

// For returns the policy of a repository. It allocates nothing for a repository that was asked for lately.
func (s *Set) For(repository reference.Repository) *Policy {
	if len(s.rules) == 0 {
		return &s.byDefault
	}
	s.mu.RLock()
	known := s.remembered[repository]
	s.mu.RUnlock()
	if known != nil {
		return known
	}
	known = s.effective(repository, func(string, reference.Tag, int) {})
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.remembered) >= maxRemembered {
		for some := range s.remembered {
			delete(s.remembered, some)
			break
		}
	}
	s.remembered[repository] = known
	return known
}

// Pinned returns the digest that a tag is frozen at.
func (s *Set) Pinned(repository reference.Repository, tag reference.Tag) (digest.Digest, bool) {
	dgst, found := s.pins[pin{repository, tag}]
	return dgst, found
}

// effective applies the rules that match, and tells set which rule sets which field, or which pinned tag.
func (s *Set) effective(repository reference.Repository, set func(field string, tag reference.Tag, rule int)) *Policy {
	effective := s.byDefault
	table := fields()
	for i := range s.rules {
		rule := &s.rules[i]
		if !rule.pattern.Match(repository) {
			continue
		}
		for _, f := range table {
			if f.given(&rule.Rule) {
				f.apply(&effective, &rule.Rule)
				set(f.name, "", i)
			}
		}
		if len(rule.PinnedTags) > 0 && effective.Pinned == nil {
			effective.Pinned = map[reference.Tag]digest.Digest{}
		}
		maps.Copy(effective.Pinned, rule.PinnedTags)
		for tag := range rule.PinnedTags {
			set(pinnedTags, tag, i)
		}
	}
	return &effective
}

// pinnedTags is the name of the field that each pinned tag is shown as.
const pinnedTags = "pinned-tags"

// Field is one line of an explanation.
type Field struct {
	Name   string // as in the configuration
	Value  string // as the configuration would have it; lists are joined with commas
	Origin string // "default", or the rule: "rule 2 (ghcr.io/**)"
}

// Explain returns every field of the policy of a repository and where it comes from, always in the same order; after the
// others one field for each pinned tag, TAG=DIGEST.
func (s *Set) Explain(repository reference.Repository) []Field {
	origins := map[string]string{}
	effective := s.effective(repository, func(field string, tag reference.Tag, rule int) {
		origins[field+" "+string(tag)] = named(rule, s.rules[rule].Match)
	})
	var explained []Field
	for _, f := range fields() {
		origin, set := origins[f.name+" "]
		if !set {
			origin = "default"
		}
		explained = append(explained, Field{Name: f.name, Value: f.text(effective), Origin: origin})
	}
	for _, tag := range slices.Sorted(maps.Keys(effective.Pinned)) {
		value := string(tag) + "=" + effective.Pinned[tag].String()
		explained = append(explained, Field{Name: pinnedTags, Value: value, Origin: origins[pinnedTags+" "+string(tag)]})
	}
	return explained
}
