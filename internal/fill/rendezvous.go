package fill

import (
	"cmp"
	"hash/fnv"
	"io"
	"slices"

	"github.com/ocistern/ocistern/fsm/catalog"
)

// rank orders nodes by their claim on a key, the owner first (rendezvous hashing). All nodes that agree on the members
// agree on the order, and when a member goes, only its own keys move.
func rank(nodes []catalog.NodeID, key ...string) []catalog.NodeID {
	type claim struct {
		node  catalog.NodeID
		score uint64
	}
	claims := make([]claim, 0, len(nodes))
	for _, node := range nodes {
		claims = append(claims, claim{node, score(string(node), key)})
	}
	slices.SortFunc(claims, func(a, b claim) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.node, b.node))
	})
	ranked := make([]catalog.NodeID, len(claims))
	for i, c := range claims {
		ranked[i] = c.node
	}
	return ranked
}

// score hashes node and key. FNV alone spreads its last bytes badly, so the sum goes through the finalizer of
// MurmurHash3.
func score(node string, key []string) uint64 {
	sum := fnv.New64a()
	for _, part := range append([]string{node}, key...) {
		_, _ = io.WriteString(sum, part) // a hash never fails
		_, _ = sum.Write([]byte{0})      // so that ("ab", "c") and ("a", "bc") differ
	}
	x := sum.Sum64()
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// owners ranks nodes for a mutable fact.
func (k Key) owners(nodes []catalog.NodeID) []catalog.NodeID {
	return rank(nodes, string(k.Tenant), string(k.Repository), string('0'+rune(k.Kind)), k.Reference)
}

// owners ranks nodes for content.
func (k ContentKey) owners(nodes []catalog.NodeID) []catalog.NodeID {
	return rank(nodes, string(k.Tenant), string(k.Repository), string('a'+rune(k.Kind)), k.Digest.String())
}
