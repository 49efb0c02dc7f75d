package catalog

import (
	"cmp"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
)

// Backoff says until when an upstream is not to be asked, by any node.
type Backoff struct {
	Upstream string    // as configured: the first segment of the names of its repositories
	Until    time.Time // by the clock of the node that was told
	Reason   string    // an errdef.Reason: UPSTREAM_THROTTLED for a Retry-After
	Node     NodeID    // which was told
}

// SetBackoff records a Backoff, unless one that lasts longer is known. It belongs to LevelRequests.
type SetBackoff struct {
	Backoff Backoff
}

const (
	// MaxBackoffs bounds the upstreams with a backoff: beyond, the one that ends first goes.
	MaxBackoffs = 256
	// maxBackoffText bounds the texts of a backoff, in bytes.
	maxBackoffText = 255
)

func (c SetBackoff) apply(tx *transaction) error {
	b := c.Backoff
	if b.Upstream == "" || b.Until.IsZero() || max(len(b.Upstream), len(b.Reason), len(b.Node)) > maxBackoffText {
		return errdef.New(errdef.CommandInvalid, "backoff: no upstream, no time, or a text of more than %d bytes", maxBackoffText)
	}
	k := key{name: b.Upstream}
	if known, ok := tx.backoffs.get(k); ok && known.Until.After(b.Until) {
		return nil
	}
	tx.backoffs.set(k, &b)
	for tx.backoffs.len() > MaxBackoffs {
		var first *Backoff
		tx.backoffs.ascend(key{}, func(_ key, other *Backoff) bool {
			if first == nil || cmp.Compare(other.Until.UnixNano(), first.Until.UnixNano()) < 0 {
				first = other
			}
			return true
		})
		tx.backoffs.remove(key{name: first.Upstream})
	}
	return nil
}

// Backoff returns until when an upstream is not to be asked. It may be over.
func (s *Snapshot) Backoff(upstream string) (Backoff, bool) {
	return deref(s.state.backoffs.get(key{name: upstream}))
}
