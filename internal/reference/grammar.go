package reference

import "strings"

// The grammars are written out, since every call and every command that is applied passes through them: the regular
// expressions of the distribution specification cost a tenth of a whole read. A test compares the two.

// isRepository tells whether text is [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*, once or several times with / in between.
func isRepository(text string) bool {
	for part := range strings.SplitSeq(text, "/") {
		if !isRepositoryPart(part) {
			return false
		}
	}
	return true
}

func isRepositoryPart(part string) bool {
	for {
		word := span(part, isLowerOrDigit)
		if word == 0 {
			return false
		}
		part = part[word:]
		if part == "" {
			return true
		}
		separator := span(part, isSeparator)
		switch text := part[:separator]; {
		case text == ".", text == "_", text == "__":
		case text != "" && strings.Trim(text, "-") == "":
		default:
			return false
		}
		part = part[separator:]
	}
}

// isTag tells whether text is [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func isTag(text string) bool {
	return text != "" && len(text) <= MaxTagLength && text[0] != '.' && text[0] != '-' && span(text, isTagByte) == len(text)
}

// isTenant tells whether text is [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?.
func isTenant(text string) bool {
	return text != "" && len(text) <= 63 && text[0] != '-' && text[len(text)-1] != '-' &&
		span(text, func(c byte) bool { return isLowerOrDigit(c) || c == '-' }) == len(text)
}

// isDigest tells whether text is a digest of an algorithm that is accepted.
func isDigest(text string) bool {
	algorithm, encoded, _ := strings.Cut(text, ":")
	return (algorithm == "sha256" && len(encoded) == 64 || algorithm == "sha512" && len(encoded) == 128) &&
		span(encoded, isHexadecimal) == len(encoded)
}

// span returns how many bytes of text belong to a class, from the first on.
func span(text string, class func(byte) bool) int {
	for i := range len(text) {
		if !class(text[i]) {
			return i
		}
	}
	return len(text)
}

func isLowerOrDigit(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
func isSeparator(c byte) bool    { return c == '.' || c == '_' || c == '-' }
func isHexadecimal(c byte) bool  { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }
func isTagByte(c byte) bool {
	return isLowerOrDigit(c) || 'A' <= c && c <= 'Z' || isSeparator(c)
}
