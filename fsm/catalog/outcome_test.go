package catalog_test

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/fsm/catalog/catalogtest"
	"github.com/ocistern/ocistern/internal/errdef"
)

func requestID(n int) catalog.RequestID {
	var id catalog.RequestID
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

// repeatedEntries returns a log in which many entries carry several commands, and many commands are sent again.
func repeatedEntries(seed uint64, length int) []catalog.Entry {
	random, commands := rand.New(rand.NewPCG(seed, 1)), catalogtest.NewCommands(seed)
	entries := []catalog.Entry{{Index: 1, Command: catalog.RaiseLevel{Level: catalog.LevelRequests}}}
	for index := catalog.LogIndex(2); len(entries) < length; index += catalog.LogIndex(random.IntN(2)) {
		if random.IntN(3) == 0 {
			repeated := entries[random.IntN(len(entries))]
			repeated.Index = index
			entries = append(entries, repeated)
			continue
		}
		request := catalog.Request{ID: requestID(len(entries)), Since: index - 1}
		entries = append(entries, catalog.Entry{Index: index, Command: commands.Next(), Request: request})
	}
	return entries
}

// TestRepeatedRequests holds that a request that is sent again changes nothing and gets its first outcome, on the original
// as on a copy restored in the meantime, in whatever batches the entries come.
func TestRepeatedRequests(t *testing.T) {
	for seed := range uint64(6) {
		entries := repeatedEntries(seed, 400)
		original, restored, repeats := catalog.New(), catalog.New(), 0
		first := map[catalog.RequestID]catalog.Result{}
		for i, entry := range entries {
			before := original.Snapshot()
			result, copied := original.Apply(entry)[0], restored.Apply(entry)[0]
			if result.Index != copied.Index || errdef.ReasonOf(result.Err) != errdef.ReasonOf(copied.Err) {
				t.Fatalf("seed %d, entry %d: the original says %+v, its copy %+v", seed, i, result, copied)
			}
			known, repeated := first[entry.Request.ID]
			if repeated && entry.Request.ID != (catalog.RequestID{}) {
				repeats++
				if result.Index != known.Index || errdef.ReasonOf(result.Err) != errdef.ReasonOf(known.Err) {
					t.Fatalf("seed %d, entry %d: first %+v, then %+v", seed, i, known, result)
				}
				if repeats%10 == 0 && digestOf(before) != digestOf(original.Snapshot()) {
					t.Fatalf("seed %d: entry %d was sent again and changed the catalog", seed, i)
				}
			} else {
				first[entry.Request.ID] = result
			}
			if i%50 == 0 {
				restored = checkCopy(t, original.Snapshot(), restored.Snapshot())
			}
		}
		if repeats < 50 {
			t.Errorf("seed %d: only %d repeats; the test has lost its meaning", seed, repeats)
		}
		want := digestAfter(entries, 1)
		if got := digestAfter(entries, 37); got != want {
			t.Errorf("seed %d: batches of 37 give %s, single entries %s", seed, got, want)
		}
		planted := catalog.New(catalog.WithoutOutcomes())
		planted.Apply(entries...)
		if digestOf(planted.Snapshot()) == want {
			t.Errorf("seed %d: a catalog that applies requests again goes unnoticed", seed)
		}
	}
}

// A command that was applied is not refused when it is sent again, though it would not fit any more; and one that was
// refused is not applied, though it would fit by now.
func TestFirstOutcomeCounts(t *testing.T) {
	for _, forgetful := range []bool{false, true} {
		var options []catalog.Option
		if forgetful {
			options = append(options, catalog.WithoutOutcomes())
		}
		cat := catalog.New(options...)
		request := func(n int) catalog.Request { return catalog.Request{ID: requestID(n)} }
		set := catalog.SetCluster{ClusterID: "c1"}
		other := catalog.Untag{Tenant: "default", Repository: "hosted", Name: "v1"}
		cat.Apply(catalog.Entry{Index: 1, Command: set, Request: request(1)},
			catalog.Entry{Index: 2, Command: other, Request: request(2)})
		// Sent again with another command, so that only the id can answer.
		results := cat.Apply(catalog.Entry{Index: 3, Command: catalog.SetCluster{ClusterID: "c2"}, Request: request(1)},
			catalog.Entry{Index: 4, Command: set, Request: request(2)})
		right := results[0] == catalog.Result{Index: 1, Repeated: true} && results[1].Index == 2 &&
			errdef.ReasonOf(results[1].Err) == errdef.NotFound
		if right == forgetful {
			t.Errorf("forgetful %v: results %+v", forgetful, results)
		}
	}
}

// TestOutcomesAreForgotten holds the bound, and that what is forgotten is refused and not applied again: at the edge, and
// after a restore.
func TestOutcomesAreForgotten(t *testing.T) {
	cat := catalog.New()
	cat.Apply(catalog.Entry{Index: 1, Command: catalog.RaiseLevel{Level: catalog.LevelRequests}})
	const more = 10
	hold := catalog.AddHolder{Node: "n1"}
	var entries []catalog.Entry
	for n := range catalog.MaxOutcomes + more {
		index := catalog.LogIndex(n + 2)
		entries = append(entries, catalog.Entry{
			Index: index, Command: hold, Request: catalog.Request{ID: requestID(n), Since: index - 1},
		})
	}
	last := catalog.LogIndex(0)
	for chunk := range slices.Chunk(entries, 1000) {
		cat.Apply(chunk...)
		last = chunk[len(chunk)-1].Index
	}
	held := func(cat *catalog.Catalog) {
		t.Helper()
		for _, c := range []struct {
			what    string
			request catalog.Request
			want    catalog.Result
			reason  errdef.Reason
		}{
			{"remembered", entries[more].Request, catalog.Result{Index: entries[more].Index}, ""},
			{"forgotten", entries[more-1].Request, catalog.Result{Index: last + 1}, errdef.RequestExpired},
			{"unknown and too old", catalog.Request{ID: requestID(1 << 40), Since: entries[more-1].Index - 1},
				catalog.Result{Index: last + 1}, errdef.RequestExpired},
		} {
			result := cat.Apply(catalog.Entry{Index: last + 1, Command: hold, Request: c.request})[0]
			if result.Index != c.want.Index || errdef.ReasonOf(result.Err) != c.reason {
				t.Errorf("%s: got %+v, want %+v %s", c.what, result, c.want, c.reason)
			}
		}
	}
	held(cat)
	restored, err := restoredFrom(cat.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	held(restored)
	outcomes := 0
	for record := range cat.Snapshot().Records() {
		if record.Outcome != nil {
			outcomes++
		}
	}
	if outcomes != catalog.MaxOutcomes {
		t.Errorf("%d outcomes are remembered, want %d", outcomes, catalog.MaxOutcomes)
	}
	// As old as the newest that is forgotten: it cannot have been among them.
	young := catalog.Request{ID: requestID(1 << 41), Since: entries[more-1].Index}
	if result := cat.Apply(catalog.Entry{Index: last + 2, Command: hold, Request: young})[0]; result.Err != nil {
		t.Errorf("refused a request that cannot have been decided before: %v", result.Err)
	}
}

// The level only goes up, and whoever restores a snapshot is at its level.
func TestFeatureLevel(t *testing.T) {
	cat := catalog.New()
	if got := cat.Snapshot().FeatureLevel(); got != catalog.LevelFirst {
		t.Errorf("begins at %d", got)
	}
	results := cat.Apply(
		catalog.Entry{Index: 1, Command: catalog.RaiseLevel{}},
		catalog.Entry{Index: 2, Command: catalog.RaiseLevel{Level: catalog.LevelRequests}},
		catalog.Entry{Index: 3, Command: catalog.RaiseLevel{Level: catalog.LevelRequests}},
		catalog.Entry{Index: 4, Command: catalog.RaiseLevel{Level: catalog.LevelFirst}},
	)
	for i, want := range []errdef.Reason{errdef.CommandInvalid, "", "", errdef.CommandInvalid} {
		if got := errdef.ReasonOf(results[i].Err); got != want {
			t.Errorf("entry %d: %v, want %q", i+1, results[i].Err, want)
		}
	}
	restored, err := restoredFrom(cat.Snapshot())
	if err != nil || restored.Snapshot().FeatureLevel() != catalog.LevelRequests {
		t.Errorf("restored at level %d: %v", restored.Snapshot().FeatureLevel(), err)
	}
}
