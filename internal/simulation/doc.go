// Package simulation runs whole clusters in one process, on a network and on disks that fail as a seed says, in time that
// passes only when nobody has anything to do (testing/synctest): an hour takes seconds. While links are cut, nodes crash, lose
// their disks and move, clients write and read tags at every level, and at the end everything they saw is checked.
//
// What runs is package cluster with raft, its network transport, our handshake, memberlist and package fsm, as in a node;
// invented are network, disks and the carriage of peer calls. It is no test of gRPC, HTTP, blobs or real disks: package e2e is.
// Tests alone use it: `make sim SEED=... RUNS=...`.
//
// A seed fixes the faults, their times and the habits of the clients. The scheduler decides the rest, so that a seed finds
// the same fault nearly always, not always.
package simulation
