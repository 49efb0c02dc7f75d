package fill

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

const headerChallenge = "Www-Authenticate"

// parameter finds the parameters of a challenge (RFC 7235, section 2.1), quoted or not.
var parameter = regexp.MustCompile(`([A-Za-z0-9_-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,]*)`)

// narrowChallenge leaves of the scopes that an upstream wants us to ask a token for those that reading needs. oras-go
// asks for all that it is told, and a token that may push is worth more to a thief.
func narrowChallenge(header http.Header) {
	for n, challenge := range header[headerChallenge] {
		header[headerChallenge][n] = parameter.ReplaceAllStringFunc(challenge, func(whole string) string {
			parts := parameter.FindStringSubmatch(whole)
			if !strings.EqualFold(parts[1], "scope") {
				return whole
			}
			return parts[1] + "=" + strconv.Quote(readingScopes(strings.Trim(parts[2], `"`)))
		})
	}
}

// readingScopes drops the actions that are none of reading, and the scopes that have no other. A scope that has not
// the form type:name:actions stays, as public.ecr.aws wants it. metadata_read is Azure's word for reading lists.
func readingScopes(scopes string) string {
	var kept []string
	for scope := range strings.FieldsSeq(scopes) {
		last := strings.LastIndexByte(scope, ':')
		if last < 0 {
			kept = append(kept, scope)
			continue
		}
		var actions []string
		for action := range strings.SplitSeq(scope[last+1:], ",") {
			if action == "pull" || action == "metadata_read" {
				actions = append(actions, action)
			}
		}
		if len(actions) > 0 {
			kept = append(kept, scope[:last+1]+strings.Join(actions, ","))
		}
	}
	return strings.Join(kept, " ")
}
