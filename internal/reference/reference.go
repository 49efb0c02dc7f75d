// Package reference holds the distinct types for what callers name (tenant, repository, tag, digest) and their
// parsers, which bound and validate input before anything else sees it.
//
// It knows no upstreams, no catalog and no network. Every layer may import it.
package reference

import (
	"strings"

	"github.com/opencontainers/go-digest"

	_ "crypto/sha256" // digest algorithms that Parse accepts
	_ "crypto/sha512"

	"github.com/ocistern/ocistern/internal/errdef"
)

// Tenant separates the content of one group of callers from all others.
type Tenant string

// DefaultTenant is the tenant of callers that name none.
const DefaultTenant Tenant = "default"

// Repository is a repository name, `<registry host>/<path>` for a mirrored one (distribution spec, "Pulling manifests").
type Repository string

// Tag is a tag name (distribution spec, "Pulling manifests").
type Tag string

// MaxRepositoryLength and MaxTagLength bound names, in bytes.
const (
	MaxRepositoryLength = 255
	MaxTagLength        = 128
)

// Reference names a tag or a digest in a repository. Exactly one of Tag and Digest is set.
type Reference struct {
	Repository Repository
	Tag        Tag
	Digest     digest.Digest
}

// String prints r as `repository:tag` or `repository@digest`.
func (r Reference) String() string {
	if r.Digest != "" {
		return string(r.Repository) + "@" + r.Digest.String()
	}
	return string(r.Repository) + ":" + string(r.Tag)
}

// Parse reads `repository:tag`, `repository@digest` or `repository:tag@digest` (the digest wins, as in oras-go).
// It returns an error of reason REFERENCE_INVALID, NAME_INVALID, TAG_INVALID or DIGEST_INVALID.
func Parse(text string) (Reference, error) {
	if len(text) > MaxRepositoryLength+MaxTagLength+200 {
		return Reference{}, errdef.New(errdef.ReferenceInvalid, "reference is %d bytes long", len(text)).
			WithRemedy("a repository name has at most %d bytes, a tag %d", MaxRepositoryLength, MaxTagLength)
	}
	name, digestText, hasDigest := strings.Cut(text, "@")
	tagText, hasTag := "", false
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, tagText, hasTag = name[:i], name[i+1:], true
	}
	if !hasTag && !hasDigest {
		return Reference{}, errdef.New(errdef.ReferenceInvalid, "reference %q names neither a tag nor a digest", text).
			WithRemedy("write REPOSITORY:TAG or REPOSITORY@DIGEST, for example ghcr.io/org/app:v1")
	}
	repository, err := ParseRepository(name)
	if err != nil {
		return Reference{}, err
	}
	ref := Reference{Repository: repository}
	if hasTag {
		if ref.Tag, err = ParseTag(tagText); err != nil {
			return Reference{}, err
		}
	}
	if hasDigest {
		ref.Tag = ""
		if ref.Digest, err = ParseDigest(digestText); err != nil {
			return Reference{}, err
		}
	}
	return ref, nil
}

// ParseTagOrDigest reads the part of a reference that follows the repository name.
func ParseTagOrDigest(repository Repository, text string) (Reference, error) {
	if strings.Contains(text, ":") {
		dgst, err := ParseDigest(text)
		return Reference{Repository: repository, Digest: dgst}, err
	}
	tag, err := ParseTag(text)
	return Reference{Repository: repository, Tag: tag}, err
}

// ParseRepository validates a repository name.
func ParseRepository(text string) (Repository, error) {
	if len(text) > MaxRepositoryLength {
		return "", errdef.New(errdef.NameInvalid, "repository name is %d bytes long", len(text)).
			WithRemedy("at most %d bytes", MaxRepositoryLength)
	}
	if !isRepository(text) {
		return "", errdef.New(errdef.NameInvalid, "%q is not a repository name", text).
			WithRemedy("lower-case letters, digits and separators (. _ __ -) in parts joined by /, for example ghcr.io/org/app")
	}
	return Repository(text), nil
}

// ParseTag validates a tag.
func ParseTag(text string) (Tag, error) {
	if !isTag(text) {
		return "", errdef.New(errdef.TagInvalid, "%q is not a tag", shorten(text)).
			WithRemedy("letters, digits and _ . -, at most %d bytes, not starting with . or -", MaxTagLength)
	}
	return Tag(text), nil
}

// ParseDigest validates a digest. sha256 and sha512 are accepted, in lower-case hexadecimal.
func ParseDigest(text string) (digest.Digest, error) {
	dgst := digest.Digest(text)
	if isDigest(text) {
		return dgst, nil
	}
	if err := dgst.Validate(); err != nil { // says what is wrong
		return "", errdef.New(errdef.DigestInvalid, "%q is not a digest: %v", shorten(text), err).
			WithRemedy("sha256: and 64, or sha512: and 128 lower-case hexadecimal characters")
	}
	return "", errdef.New(errdef.DigestInvalid, "digest algorithm %s is not supported", dgst.Algorithm()).
		WithRemedy("use sha256 or sha512")
}

// ParseTenant validates a tenant name: a DNS label.
func ParseTenant(text string) (Tenant, error) {
	if !isTenant(text) {
		return "", errdef.New(errdef.NameInvalid, "%q is not a tenant name", shorten(text)).
			WithRemedy("a DNS label: lower-case letters, digits and -, at most 63 bytes")
	}
	return Tenant(text), nil
}

// UpstreamHost splits a repository name into its first segment and the rest: the upstream that a mirrored repository
// names and the path there. rest is empty for a name of one segment.
func (r Repository) UpstreamHost() (host, rest string) {
	host, rest, _ = strings.Cut(string(r), "/")
	return host, rest
}

func shorten(text string) string {
	if len(text) > 80 {
		return text[:80] + "..."
	}
	return text
}
