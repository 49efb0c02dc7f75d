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

func (tx *transaction) clearAbsence(k key) {
	if known, ok := tx.absences.get(k); ok {
		tx.absences.remove(k)
		tx.expiries.remove(expiryKey(known, k))
	}
}

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
