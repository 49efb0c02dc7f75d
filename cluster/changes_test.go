package cluster

import (
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/fsm/catalog"
)

func voter(id string) raft.Server {
	return raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress("at-" + id)}
}

func nonvoter(id string) raft.Server {
	s := voter(id)
	s.Suffrage = raft.Nonvoter
	return s
}

type sightings = map[catalog.NodeID]sighting

func seen(state State, cluster, at string) sighting {
	return sighting{State: state, metadata: metadata{Cluster: cluster, Raft: at, Peer: "peer"}}
}

func alive(cluster, at string) sighting { return seen(StateAlive, cluster, at) }
func dead(cluster, at string) sighting  { return seen(StateDead, cluster, at) }

func TestChanges(t *testing.T) {
	abc := []raft.Server{voter("a"), voter("b"), voter("c")}
	for _, c := range []struct {
		name    string
		servers []raft.Server
		seen    sightings
		want    []change
	}{
		{"all is well", abc, sightings{"b": alive("x", "at-b"), "c": alive("x", "at-c")}, nil},
		{"a dead voter stays", abc, sightings{"b": alive("x", "at-b"), "c": dead("x", "at-c")}, nil},
		{"a spare node comes in as nonvoter", abc, sightings{"c": dead("x", "at-c"), "d": alive("", "at-d")},
			[]change{{action: actionAdd, peer: "peer", node: nonvoter("d")}}},
		{"strangers and the promised are left alone", abc, sightings{
			"d": alive("y", "at-d"), "e": dead("", "at-e"), "f": seen(StateLeft, "", "at-f")}, nil},
		{"a nonvoter is promoted where a voter is missing", []raft.Server{voter("a"), voter("b"), nonvoter("c")},
			sightings{"c": alive("x", "at-c")},
			[]change{{action: actionPromote, peer: "peer", node: voter("c")}}},
		{"a dead nonvoter is not", []raft.Server{voter("a"), voter("b"), nonvoter("c")},
			sightings{"c": dead("x", "at-c")}, nil},
		{"a wiped voter is replaced before others are added", abc, sightings{
			"0": alive("", "at-0"), "b": alive("x", "at-b"), "c": dead("x", "at-c"),
			"d": alive("", "at-c")},
			[]change{
				{action: actionReplace, peer: "peer", replaced: "c",
					node: raft.Server{ID: "d", Address: "at-c", Suffrage: raft.Nonvoter}},
				{action: actionAdd, peer: "peer", node: nonvoter("0")},
			}},
		{"not while the voters that stay are no quorum", abc, sightings{
			"b": dead("x", "at-b"), "c": dead("x", "at-c"), "d": alive("", "at-c")}, nil},
		{"not while the old one is alive", abc, sightings{
			"b": alive("x", "at-b"), "c": alive("x", "at-c"), "d": alive("", "at-c")}, nil},
		{"a voter that moved keeps its vote", abc, sightings{"b": alive("x", "elsewhere")},
			[]change{{action: actionMove, peer: "peer", node: raft.Server{ID: "b", Address: "elsewhere"}}}},
		{"the leader moves itself", abc, sightings{"a": alive("x", "elsewhere")},
			[]change{{action: actionMove, peer: "peer", node: raft.Server{ID: "a", Address: "elsewhere"}}}},
		{"not onto the address of a living one", abc, sightings{"b": alive("x", "at-a")}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := view{self: "a", cluster: "x", expect: 3, servers: c.servers, seen: c.seen}
			if got := v.changes(); !slices.Equal(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// What the leader decides about members that do not answer. a is the leader; three voters are expected.
func TestChangesOfTheDead(t *testing.T) {
	t.Parallel()
	const deadAfter, steady = 10 * time.Minute, 10 * time.Second
	now := time.Unix(1_700_000_000, 0)
	lost := func(ago time.Duration) contact { return contact{last: now.Add(-ago), failed: true} }
	heard := func(since time.Duration) contact { return contact{last: now, since: now.Add(-since)} }
	type contacts = map[raft.ServerID]contact
	// b and d answer, d is a nonvoter; c has answered no heartbeat for as long as it takes.
	abcd := []raft.Server{voter("a"), voter("b"), voter("c"), nonvoter("d")}
	allVoters := []raft.Server{voter("a"), voter("b"), voter("c"), voter("d")}
	cDead := sightings{"b": alive("x", "at-b"), "c": dead("x", "at-c"), "d": alive("x", "at-d")}
	cLost := contacts{"b": heard(time.Hour), "c": lost(deadAfter), "d": heard(steady)}
	promoteD := []change{{action: actionPromote, peer: "peer", node: voter("d")}}
	removeC := []change{{action: actionRemove, node: voter("c")}}
	for _, c := range []struct {
		name    string
		servers []raft.Server
		seen    sightings
		heard   contacts
		want    []change
	}{
		{"a nonvoter takes its place first", abcd, cDead, cLost, promoteD},
		{"then the dead one goes", allVoters, cDead, cLost, removeC},
		{"not before the time", abcd, cDead,
			contacts{"b": heard(time.Hour), "c": lost(deadAfter - time.Second), "d": heard(steady)}, nil},
		{"nor after", allVoters, cDead,
			contacts{"b": heard(time.Hour), "c": lost(deadAfter - time.Second), "d": heard(steady)}, nil},
		{"not on gossip alone", abcd, cDead,
			contacts{"b": heard(time.Hour), "c": heard(time.Hour), "d": heard(steady)}, nil},
		{"not while gossip sees it alive", abcd,
			sightings{"b": alive("x", "at-b"), "c": alive("x", "at-c"), "d": alive("x", "at-d")}, cLost, nil},
		{"one that never was heard of in gossip is dead, too", abcd,
			sightings{"b": alive("x", "at-b"), "d": alive("x", "at-d")}, cLost, promoteD},
		{"without a nonvoter it stays", abcd[:3], sightings{"b": alive("x", "at-b"), "c": dead("x", "at-c")}, cLost, nil},
		{"not by a nonvoter that has just come back", abcd, cDead,
			contacts{"b": heard(time.Hour), "c": lost(deadAfter), "d": heard(steady - time.Second)}, nil},
		{"not by a nonvoter that does not answer", abcd, cDead,
			contacts{"b": heard(time.Hour), "c": lost(deadAfter), "d": lost(time.Second)}, nil},
		{"not while the voters that stay are no quorum of themselves", allVoters,
			sightings{"b": dead("x", "at-b"), "c": dead("x", "at-c"), "d": alive("x", "at-d")},
			contacts{"b": lost(time.Minute), "c": lost(deadAfter), "d": lost(time.Second)}, nil},
		{"of two dead ones, one place at a time", append(slices.Clone(allVoters), nonvoter("e")),
			sightings{"c": dead("x", "at-c"), "b": dead("x", "at-b"), "d": alive("x", "at-d"), "e": alive("x", "at-e")},
			contacts{"b": lost(deadAfter), "c": lost(deadAfter), "d": heard(time.Hour), "e": heard(time.Hour)},
			[]change{{action: actionRemove, node: voter("b")}, {action: actionRemove, node: voter("c")}}},
		{"a dead nonvoter goes", abcd, sightings{
			"b": alive("x", "at-b"), "c": alive("x", "at-c"), "d": dead("x", "at-d")},
			contacts{"b": heard(time.Hour), "c": heard(time.Hour), "d": lost(deadAfter)},
			[]change{{action: actionRemove, node: nonvoter("d")}}},
		{"a node that listens at its address is reason enough", abcd[:3], sightings{
			"b": alive("x", "at-b"), "c": dead("x", "at-c"), "d": alive("", "at-c")},
			contacts{"b": heard(time.Hour), "c": lost(time.Second)},
			[]change{{action: actionReplace, peer: "peer", replaced: "c",
				node: raft.Server{ID: "d", Address: "at-c", Suffrage: raft.Nonvoter}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := view{
				self: "a", cluster: "x", expect: 3, servers: c.servers, seen: c.seen, heard: c.heard, now: now,
				deadAfter: deadAfter, steady: steady,
			}
			if got := v.changes(); !slices.Equal(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
			v.deadAfter = 0
			for _, got := range v.changes() {
				if got.action == actionRemove || got.action == actionPromote {
					t.Errorf("with a time of 0: %+v, want nothing, ever", got)
				}
			}
		})
	}
}
