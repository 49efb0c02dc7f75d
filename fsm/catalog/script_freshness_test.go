package catalog_test

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/reference"
)

// raise LEVEL
func (s *script) raise(a arguments) catalog.Command {
	return catalog.RaiseLevel{Level: catalog.FeatureLevel(number(a.word(0)))}
}

func number(text string) uint64 {
	number, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		panic(err) // the script is wrong
	}
	return number
}

// seen is the index that a proposer had seen.
func (a arguments) seen() catalog.LogIndex { return catalog.LogIndex(number(a.value("seen", "0"))) }

// invalidate REPOSITORY[/*] [tag=TAG] [digest=D]
func (s *script) invalidate(a arguments) catalog.Command {
	name, below := strings.CutSuffix(a.word(0), "/*")
	return catalog.Invalidate{
		Tenant: a.tenant(), Repository: reference.Repository(name), Below: below,
		Tag: reference.Tag(a.value("tag", "")), Digest: s.digest(a.value("digest", "")),
	}
}

// backoff UPSTREAM until=SECONDS [reason=R] [node=N]
func (s *script) setBackoff(a arguments) catalog.Command {
	return catalog.SetBackoff{Backoff: catalog.Backoff{
		Upstream: a.word(0), Until: a.seconds("until"), Reason: a.value("reason", ""), Node: catalog.NodeID(a.value("node", "")),
	}}
}

// until UPSTREAM
func (s *script) showBackoff(a arguments) string {
	backoff, ok := s.catalog.Snapshot().Backoff(a.word(0))
	if !ok {
		return "none"
	}
	return fmt.Sprintf("%s %s by %s", showTime(backoff.Until), backoff.Reason, backoff.Node)
}

// history REPOSITORY TAG
func (s *script) showHistory(a arguments) string {
	var lines []string
	for _, event := range s.catalog.Snapshot().History(a.tenant(), a.repository(), reference.Tag(a.word(1))) {
		target := event.Digest.String()
		if target == "" {
			target = "absent"
		}
		lines = append(lines, fmt.Sprintf("%s since %s revision %d by %s", target, showTime(event.Since), event.Revision, cmp.Or(event.By, "-")))
	}
	if lines == nil {
		return "none"
	}
	return strings.Join(lines, "\n")
}

// invalidated REPOSITORY SEEN
func (s *script) showInvalidated(a arguments) string {
	return fmt.Sprint(s.catalog.Snapshot().Invalidated(a.tenant(), a.repository(), catalog.LogIndex(number(a.word(1)))))
}
