package registry

import (
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// Scope is what an invalidation is about: a repository, one tag or one digest of it, or, with Below, all repositories whose
// names begin with it and a slash.
type Scope struct {
	Repository reference.Repository
	Below      bool
	Tag        reference.Tag
	Digest     digest.Digest
}

// ParseScope reads REPOSITORY, REPOSITORY:TAG, REPOSITORY@DIGEST or REPOSITORY/*. It fails with NAME_INVALID, TAG_INVALID or
// DIGEST_INVALID.
func ParseScope(text string) (Scope, error) {
	if name, below := strings.CutSuffix(text, "/*"); below {
		repository, err := reference.ParseRepository(name)
		return Scope{Repository: repository, Below: true}, err
	}
	if repository, err := reference.ParseRepository(text); err == nil {
		return Scope{Repository: repository}, nil
	}
	named, err := reference.Parse(text)
	return Scope{Repository: named.Repository, Tag: named.Tag, Digest: named.Digest}, err
}

// String returns what ParseScope reads.
func (s Scope) String() string {
	if s.Below {
		return string(s.Repository) + "/*"
	}
	if s.Tag == "" && s.Digest == "" {
		return string(s.Repository)
	}
	return reference.Reference{Repository: s.Repository, Tag: s.Tag, Digest: s.Digest}.String()
}

// command returns what invalidates a scope. A tag that comes with its digest is a tag.
func (s Scope) command(tenant reference.Tenant) (catalog.Invalidate, error) {
	if s.Repository == "" {
		return catalog.Invalidate{}, errdef.New(errdef.UsageInvalid, "nothing is named").
			WithRemedy("REPOSITORY, REPOSITORY:TAG, REPOSITORY@DIGEST or REPOSITORY/*")
	}
	command := catalog.Invalidate{Tenant: tenant, Repository: s.Repository, Below: s.Below, Tag: s.Tag}
	if s.Tag == "" {
		command.Digest = s.Digest
	}
	return command, nil
}
