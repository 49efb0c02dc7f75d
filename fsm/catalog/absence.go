package catalog

import (
	"encoding/binary"
	"time"

	"github.com/ocistern/ocistern/internal/reference"
)

func absenceKey(t reference.Tenant, r reference.Repository, kind AbsenceKind, ref string) key {
	return key{t, r, string(rune('0'+kind)) + ref}
}

// expires returns when an absence may no longer be answered at all.
func (a *Absence) expires() time.Time {
	if len(a.History) > 0 {
		return a.Freshness.Observed.Add(historyLife)
	}
	if a.Freshness.StaleUntil.After(a.Freshness.FreshUntil) {
		return a.Freshness.StaleUntil
	}
	return a.Freshness.FreshUntil
}

// expiryKey orders the absence at k by its end: the seconds, sortable as bytes, then what makes the key unique.
func expiryKey(a *Absence, k key) key {
	seconds := binary.BigEndian.AppendUint64(nil, uint64(a.expires().Unix())^1<<63)
	return key{name: string(seconds) + string(k.tenant) + " " + string(k.repository) + " " + k.name}
}

func (tx *transaction) setAbsence(k key, a *Absence) {
	tx.clearAbsence(k)
	tx.absences.set(k, a)
	tx.expiries.set(expiryKey(a, k), &k)
}

// forgetAbsence makes an absence one that is not answered any more; what it knows of the past stays.
func (tx *transaction) forgetAbsence(k key) {
	known, ok := tx.absences.get(k)
	if !ok || len(known.History) == 0 {
		tx.clearAbsence(k)
		return
	}
	expired := *known
	expired.Freshness = Freshness{Observed: known.Freshness.Observed}
	tx.setAbsence(k, &expired)
}

func (tx *transaction) clearAbsence(k key) {
	if known, ok := tx.absences.get(k); ok {
		tx.absences.remove(k)
		tx.expiries.remove(expiryKey(known, k))
	}
}

// historyLife is how long the history of a tag is kept that is absent at its upstream, by the clocks of the proposers.
const historyLife = 30 * 24 * time.Hour

// prunedAbsences bounds how many expired absences, of whatever repository, one new absence clears away. More than
// one, so that the absences cannot outgrow what was asked for within one life span.
const prunedAbsences = 4

// pruneAbsences takes the clock of the proposer for the time: a clock that runs ahead costs a question to an
// upstream.
func (tx *transaction) pruneAbsences(now time.Time) {
	var expired []key
	tx.expiries.ascend(key{}, func(_ key, k *key) bool {
		if a, ok := tx.absences.get(*k); ok && !a.expires().Before(now) {
			return false
		}
		expired = append(expired, *k)
		return len(expired) < prunedAbsences
	})
	for _, k := range expired {
		tx.clearAbsence(k)
	}
}
