package client

import (
	"sync/atomic"

	"github.com/ocistern/ocistern/internal/errdef"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
)

// session remembers the highest catalog index that any answer was read at (guarantee G1: a client never goes back in
// time). Requests carry it, nodes wait until they have applied it, and answers from before it are refused.
type session struct {
	highest atomic.Uint64
}

func (s *session) seen() uint64 { return s.highest.Load() }

// accept refuses an answer about something mutable that is older than what the request asked for, and otherwise
// remembers its index.
func (s *session) accept(asked uint64, p *registryv1.Provenance) error {
	if index := p.GetCatalogIndex(); index < asked {
		return misbehaved{errdef.New(errdef.NotReady, "node %s answered from catalog index %d, %d was asked for",
			p.GetNode(), index, asked)}
	}
	s.observe(p)
	return nil
}

// observe remembers the index of an answer about immutable content, which cannot be too old.
func (s *session) observe(p *registryv1.Provenance) { s.raise(p.GetCatalogIndex()) }

// raise makes later answers be no older than index.
func (s *session) raise(index uint64) {
	for {
		highest := s.highest.Load()
		if index <= highest || s.highest.CompareAndSwap(highest, index) {
			return
		}
	}
}
