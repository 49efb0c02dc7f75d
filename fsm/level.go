//go:build !ocistern_level1

package fsm

import "github.com/ocistern/ocistern/fsm/catalog"

// MaxLevel is the highest feature level whose entries and snapshots this build understands.
const MaxLevel = catalog.LevelRequests
