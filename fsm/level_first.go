//go:build ocistern_level1

package fsm

import "github.com/ocistern/ocistern/fsm/catalog"

// MaxLevel makes this a build of feature level 1, for tests of upgrades.
const MaxLevel = catalog.LevelFirst
