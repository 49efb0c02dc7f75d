// Package e2e proves the guarantees of Ocistern on real processes and real registries.
//
// The scenarios are scripts in testdata/script; script_test.go and its neighbours hold the commands that they use, and
// DESIGN.md lists them. Run one with `go test -run 'TestScripts/leader-killed' .`. It has no code of its own and is a
// module of its own, because real registries, notation and the oras CLI bring many dependencies that the node must not
// have.
package e2e
