package catalog

import (
	"slices"

	"github.com/ocistern/ocistern/internal/errdef"
)

const (
	// MaxFormers bounds the clusters that are remembered to have been recovered as this one.
	MaxFormers = 64
	// maxClusterID bounds the id of such a cluster, in bytes.
	maxClusterID = 64
)

// Formers returns the clusters that were recovered, one after the other, as this one, oldest first.
func (s *Snapshot) Formers() []string { return s.state.formers }

func (c NoteFormers) apply(tx *transaction) error {
	for _, id := range c.ClusterIDs {
		if id == "" || len(id) > maxClusterID || id == tx.clusterID {
			return errdef.New(errdef.CommandInvalid, "cluster %.100q cannot have been recovered as cluster %s", id, tx.clusterID)
		}
	}
	tx.formers = WithFormers(tx.formers, c.ClusterIDs...)
	return nil
}

// WithFormers returns a new list of former clusters, of the known ones and more, without repetition.
func WithFormers(known []string, more ...string) []string {
	var formers []string
	for _, id := range slices.Concat(known, more) {
		if !slices.Contains(formers, id) {
			formers = append(formers, id)
		}
	}
	return formers[max(0, len(formers)-MaxFormers):]
}
