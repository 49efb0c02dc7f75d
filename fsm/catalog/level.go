package catalog

import "github.com/ocistern/ocistern/internal/errdef"

// FeatureLevel counts the formats of log and snapshot that all nodes of a cluster have agreed on. It only grows.
type FeatureLevel uint32

// The levels.
const (
	// LevelFirst is where every cluster starts: one command an entry.
	LevelFirst FeatureLevel = 1
	// LevelRequests adds batches of commands, and requests with remembered outcomes.
	LevelRequests FeatureLevel = 2
)

// RaiseLevel lets entries of a higher feature level follow. It is submitted when every member supports that level, and
// refused with reason COMMAND_INVALID when it would lower it.
type RaiseLevel struct {
	Level FeatureLevel
}

func (c RaiseLevel) apply(tx *transaction) error {
	if c.Level < tx.level {
		return errdef.New(errdef.CommandInvalid, "the feature level is %d and cannot go back to %d", tx.level, c.Level)
	}
	tx.level = c.Level
	return nil
}

// FeatureLevel returns the level of the cluster.
func (s *Snapshot) FeatureLevel() FeatureLevel { return s.state.level }
