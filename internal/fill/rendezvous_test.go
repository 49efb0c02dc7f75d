package fill

import (
	"fmt"
	"slices"
	"testing"

	"github.com/ocistern/ocistern/fsm/catalog"
)

func TestRankIsAgreedAndEven(t *testing.T) {
	nodes := []catalog.NodeID{"a", "b", "c", "d", "e"}
	owned := map[catalog.NodeID]int{}
	const keys = 10_000
	for n := range keys {
		key := fmt.Sprint("key", n)
		ranked := rank(nodes, key)
		reversed := slices.Clone(nodes)
		slices.Reverse(reversed)
		if !slices.Equal(ranked, rank(reversed, key)) {
			t.Fatalf("the order of the members changes the rank of %s", key)
		}
		owned[ranked[0]]++
		without := slices.DeleteFunc(slices.Clone(nodes), func(node catalog.NodeID) bool { return node == ranked[0] })
		if !slices.Equal(ranked[1:], rank(without, key)) {
			t.Fatalf("when the owner of %s goes, more than its own keys move", key)
		}
	}
	for node, count := range owned {
		if fair := keys / len(nodes); count < fair*9/10 || count > fair*11/10 {
			t.Errorf("%s owns %d of %d keys", node, count, keys)
		}
	}
}

func TestKeysOfAllKindsAreDistinct(t *testing.T) {
	seen := map[uint64]string{}
	for _, parts := range [][]string{{"ab", "c"}, {"a", "bc"}, {"abc"}, {"abc", ""}, {"", "abc"}} {
		sum := score("node", parts)
		if other, ok := seen[sum]; ok {
			t.Errorf("%q and %q have one score", parts, other)
		}
		seen[sum] = fmt.Sprint(parts)
	}
}
