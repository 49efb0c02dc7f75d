package catalog_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// What a cluster was is told once, in order, and bounded; what it cannot have been is refused.
func TestNoteFormers(t *testing.T) {
	cat := catalog.New()
	var many []string
	for i := range catalog.MaxFormers + 3 {
		many = append(many, fmt.Sprint("m", i))
	}
	index := catalog.LogIndex(0)
	apply := func(command catalog.Command) error {
		index++
		return cat.Apply(catalog.Entry{Index: index, Command: command})[0].Err
	}
	if err := apply(catalog.SetCluster{ClusterID: "now"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		told, want []string
		reason     errdef.Reason
	}{
		{[]string{"a", "b"}, []string{"a", "b"}, ""},
		{[]string{"b", "a", "c"}, []string{"a", "b", "c"}, ""},
		{[]string{"d", "now"}, []string{"a", "b", "c"}, errdef.CommandInvalid},
		{[]string{""}, []string{"a", "b", "c"}, errdef.CommandInvalid},
		{[]string{fmt.Sprintf("%65d", 1)}, []string{"a", "b", "c"}, errdef.CommandInvalid},
		{many, many[3:], ""},
	} {
		before, err := cat.Snapshot().Digest()
		if err != nil {
			t.Fatal(err)
		}
		if err := apply(catalog.NoteFormers{ClusterIDs: c.told}); errdef.ReasonOf(err) != c.reason {
			t.Errorf("%v: %v", c.told, err)
		}
		after, err := cat.Snapshot().Digest()
		if got := cat.Snapshot().Formers(); err != nil || !slices.Equal(got, c.want) || (before == after) != (c.reason != "") {
			t.Errorf("told %v: %v, %v", c.told, got, err)
		}
	}
}
