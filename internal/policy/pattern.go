package policy

import (
	"path"
	"strings"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// anySegments is the segment of a pattern that stands for any number of segments, also none.
const anySegments = "**"

// maxPattern bounds a pattern, in bytes.
const maxPattern = reference.MaxRepositoryLength

// Pattern matches whole repository names, segment by segment: ** is any number of segments, * any text inside of one,
// ? one character, [a-z] one of several. ghcr.io/** is all of an upstream, ghcr.io/org/* what lies right below ghcr.io/org.
type Pattern struct {
	text     string
	segments []string
}

// ParsePattern reads a pattern. Its errors are of reason CONFIG_INVALID.
func ParsePattern(text string) (Pattern, error) {
	if text == "" || len(text) > maxPattern {
		return Pattern{}, errdef.New(errdef.ConfigInvalid, "a pattern of %d bytes", len(text)).
			WithRemedy("1 to %d, for example ghcr.io/org/*", maxPattern)
	}
	segments := strings.Split(text, "/")
	for _, segment := range segments {
		if segment == anySegments {
			continue
		}
		_, err := reference.ParseRepository(segment)
		if isWild(segment) {
			err = checkGlob(segment, "abcdefghijklmnopqrstuvwxyz0123456789._-")
		}
		if err != nil || strings.Contains(segment, anySegments) {
			return Pattern{}, errdef.New(errdef.ConfigInvalid, "%q is not a pattern of repository names", text).
				WithRemedy("lower-case names joined by /, where * is one segment or a part of it and ** any number of whole " +
					"segments, for example ghcr.io/org/* or ghcr.io/**")
		}
	}
	return Pattern{text: text, segments: segments}, nil
}

// String returns the pattern as it was read.
func (p Pattern) String() string { return p.text }

// Exact returns the one repository that a pattern without wildcards matches.
func (p Pattern) Exact() (reference.Repository, bool) {
	return reference.Repository(p.text), p.text != "" && !isWild(p.text)
}

// Covers tells whether some repository of an upstream may match.
func (p Pattern) Covers(upstream string) bool {
	return p.segments[0] == anySegments || len(p.segments) > 1 && matches(p.segments[0], upstream)
}

// Match tells whether a repository matches. It allocates nothing, and takes at most time in proportion to the lengths of
// name and pattern: what ** skips is only ever tried longer for the last ** passed.
func (p Pattern) Match(repository reference.Repository) bool {
	wanted, rest := p.segments, string(repository)
	var retryWanted []string // after the last **; nil before the first
	retryRest := ""
	for len(wanted) > 0 || rest != "" {
		if len(wanted) > 0 && wanted[0] == anySegments {
			wanted = wanted[1:]
			if len(wanted) == 0 {
				return true
			}
			retryWanted, retryRest = wanted, rest
			continue
		}
		segment, after, _ := strings.Cut(rest, "/")
		switch {
		case len(wanted) > 0 && rest != "" && matches(wanted[0], segment):
			wanted, rest = wanted[1:], after
		case retryWanted != nil && retryRest != "":
			_, retryRest, _ = strings.Cut(retryRest, "/")
			wanted, rest = retryWanted, retryRest
		default:
			return false
		}
	}
	return true
}

// checkTagPattern refuses what can match no tag.
func checkTagPattern(text string) error {
	if !isWild(text) {
		_, err := reference.ParseTag(text)
		return err
	}
	if len(text) > maxPattern {
		return path.ErrBadPattern
	}
	return checkGlob(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
}

func checkGlob(text, letters string) error {
	if strings.Trim(text, letters+"*?[]^") != "" {
		return path.ErrBadPattern
	}
	_, err := path.Match(text, "")
	return err
}

func isWild(text string) bool { return strings.ContainsAny(text, `*?[]^\`) }

// matches compares one segment, or a tag, with a glob that was checked before.
func matches(glob, text string) bool {
	matched, err := path.Match(glob, text)
	return matched && err == nil
}
