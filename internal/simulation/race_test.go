//go:build race

package simulation

// raced tells that the race detector runs, which makes a simulated hour ten times as long.
const raced = true
