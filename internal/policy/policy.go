// Package policy says how long what an upstream said may be used, which tags never move, and what is fetched ahead: per
// repository, from an ordered list of rules.
//
// It is pure: it reads no file, no clock and no catalog. Package config makes the rules, package fill writes the times
// that follow from them into the catalog, package registry answers by them. All nodes must have the same rules: the
// owner of a key applies its own.
package policy

import (
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/reference"
)

// Policy holds what is in effect for one repository. It is shared: do not change it.
type Policy struct {
	// FreshFor is how long a tag is answered without asking the upstream again. Only where it and RevalidateFor are 0, each
	// call waits for the upstream.
	FreshFor time.Duration
	// RevalidateFor begins where FreshFor ends: for that long an answer is given at once, declared stale, while the upstream
	// is asked in the background. It never reaches beyond StaleFor.
	RevalidateFor time.Duration
	// StaleFor begins where FreshFor ends: for that long an answer may be given, declared stale, when the upstream cannot
	// be asked.
	StaleFor time.Duration
	// AbsentFor is how long a definite 404 is believed.
	AbsentFor time.Duration
	// ReferrersFreshFor is FreshFor of referrers lists.
	ReferrersFreshFor time.Duration
	// Immutable are the patterns of tags that are never asked again once they are known.
	Immutable []string
	// Pinned are the tags that are never asked at all: each means its digest.
	Pinned map[reference.Tag]digest.Digest
	// PrefetchDepth is how far referrers are fetched ahead: 0 not at all, 1 the referrers of a subject with their manifests
	// and blobs, 2 the referrers of these too, and so on.
	PrefetchDepth int
	// PrefetchBytes is the size of the largest manifest or blob that is fetched ahead.
	PrefetchBytes int64
}

// Default returns what holds where no rule says otherwise.
func Default() Policy {
	return Policy{
		FreshFor: 5 * time.Minute, RevalidateFor: time.Minute, StaleFor: 24 * time.Hour, AbsentFor: 10 * time.Second,
		ReferrersFreshFor: 5 * time.Minute, PrefetchDepth: 2, PrefetchBytes: 256 << 10,
	}
}

// IsImmutable tells whether a tag is never asked again once it is known.
func (p *Policy) IsImmutable(tag reference.Tag) bool {
	return slices.ContainsFunc(p.Immutable, func(glob string) bool { return matches(glob, string(tag)) })
}
