package registry

import (
	"time"

	"github.com/ocistern/ocistern/fsm/catalog"
)

// Provenance declares where an answer comes from and how old it is (guarantee G6).
type Provenance struct {
	Index       catalog.LogIndex
	Source      catalog.Source
	Fresh       bool
	Why         Why           // it was given
	Observed    time.Time     // zero for pushed and immutable content
	Age         time.Duration // since Observed, by the clock of the answering node; zero with it
	StaleReason string        // empty when fresh
	Node        string        // name of the answering node
	Filled      bool          // the call waited for a fill, whose bytes may still be arriving; not on the wire
}

// Why names the ground on which an answer was given, in one word. A stale answer that bridges a failure has the reason of
// the failure instead, such as UPSTREAM_THROTTLED. The words are part of the wire format: they are never renamed.
type Why string

// The grounds.
const (
	WhyFresh        Why = "fresh"        // the upstream said so within fresh-for
	WhyPinned       Why = "pinned"       // the configuration says so
	WhyImmutable    Why = "immutable"    // the configuration says that this tag never moves
	WhyPushed       Why = "pushed"       // it was pushed here
	WhyDigest       Why = "digest"       // what a digest names never changes
	WhySeen         Why = "seen"         // a list of the tags that were seen so far
	WhyRevalidating Why = "revalidating" // fresh until lately; the upstream is asked in the background
)

// staleRevalidating is the stale reason of an answer that is being renewed.
const staleRevalidating = "REVALIDATING"
