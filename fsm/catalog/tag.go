package catalog

import (
	"slices"

	"github.com/ocistern/ocistern/internal/reference"
)

func (tx *transaction) moveTag(p *Publish, update TagUpdate) {
	k := key{p.Tenant, p.Repository, string(update.Name)}
	next := Tag{
		Name: update.Name, Descriptor: update.Descriptor, Source: p.Source, Freshness: update.Freshness,
		Since: p.Time, Revision: tx.index, By: tx.learner(p.Holder),
	}
	absence := absenceKey(p.Tenant, p.Repository, AbsentTag, string(update.Name))
	if known, ok := tx.tags.get(k); ok {
		if known.Source == SourcePushed && p.Source == SourceUpstream {
			return
		}
		if known.Descriptor.Digest == update.Descriptor.Digest {
			next.Since, next.Revision, next.By, next.History = known.Since, known.Revision, known.By, known.History
		} else {
			next.History = appendEvent(known.History, known.event())
		}
	} else if gone, ok := tx.absences.get(absence); ok {
		next.History = gone.History
	}
	tx.tags.set(k, &next)
	tx.clearAbsence(absence)
}

// learner is the node that is recorded with what it learned: from the level on at which all nodes keep it.
func (tx *transaction) learner(node NodeID) NodeID {
	if tx.level < LevelRequests {
		return ""
	}
	return node
}

// event is the present target as an event of the past.
func (t *Tag) event() TagEvent {
	return TagEvent{Digest: t.Descriptor.Digest, Since: t.Since, Revision: t.Revision, By: t.By}
}

// appendEvent returns a history with events at its end, bounded. The given slice is not changed.
func appendEvent(history []TagEvent, events ...TagEvent) []TagEvent {
	longer := append(slices.Clone(history), events...)
	return longer[max(0, len(longer)-MaxTagHistory):]
}

// historyOf returns what an absence has to remember of a tag that was there. A tag that is still absent keeps what it had.
func (tx *transaction) historyOf(c *RecordAbsence, absence Absence) []TagEvent {
	if absence.Kind != AbsentTag || tx.level < LevelRequests {
		return nil
	}
	if known, ok := tx.tags.get(key{c.Tenant, c.Repository, absence.Reference}); ok {
		return appendEvent(known.History, known.event(), TagEvent{Since: absence.Freshness.Observed, Revision: tx.index})
	}
	if gone, ok := tx.absences.get(absenceKey(c.Tenant, c.Repository, absence.Kind, absence.Reference)); ok {
		return gone.History
	}
	return nil
}

// History returns the events of a tag, oldest first, the present one last; none for a tag that nobody has seen. The digest
// of the last one is empty for a tag that is absent at its upstream.
func (s *Snapshot) History(t reference.Tenant, r reference.Repository, name reference.Tag) []TagEvent {
	if tag, ok := s.state.tags.get(key{t, r, string(name)}); ok {
		return append(slices.Clone(tag.History), tag.event())
	}
	if absence, ok := s.state.absences.get(absenceKey(t, r, AbsentTag, string(name))); ok {
		return slices.Clone(absence.History)
	}
	return nil
}
