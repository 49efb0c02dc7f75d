// Package ownership says which node asks an upstream about a key. Nodes compute it to fetch everything once (guarantee G7),
// and clients to ask for content where it will be fetched, which saves a hop.
//
// It only ranks: package fill knows who lives and what to do when an owner is gone. Nodes and clients of different builds must
// agree, so neither the parts of a key nor the scores may change; a test holds both.
package ownership

import (
	"cmp"
	"hash/fnv"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/reference"
)

// Key is something that one node asks about for all. Keys of different kinds are never equal.
type Key struct {
	tenant     reference.Tenant
	repository reference.Repository
	kind       string
	name       string
}

// Tag returns the key of where a tag points.
func Tag(tenant reference.Tenant, repository reference.Repository, tag string) Key {
	return Key{tenant, repository, "1", tag}
}

// Referrers returns the key of the referrers list of a subject.
func Referrers(tenant reference.Tenant, repository reference.Repository, subject digest.Digest) Key {
	return Key{tenant, repository, "2", subject.String()}
}

// Manifest returns the key of content that is asked for as a manifest.
func Manifest(tenant reference.Tenant, repository reference.Repository, dgst digest.Digest) Key {
	return Key{tenant, repository, "b", dgst.String()}
}

// Blob returns the key of content that is asked for as a blob.
func Blob(tenant reference.Tenant, repository reference.Repository, dgst digest.Digest) Key {
	return Key{tenant, repository, "c", dgst.String()}
}

// Rank orders nodes by their claim on a key, the owner first (rendezvous hashing). All who agree on the nodes agree on the
// order, and when a node goes, only its own keys move.
func Rank[Node ~string](key Key, nodes []Node) []Node {
	type claim struct {
		node  Node
		score uint64
	}
	claims := make([]claim, 0, len(nodes))
	for _, node := range nodes {
		claims = append(claims, claim{node, key.score(string(node))})
	}
	slices.SortFunc(claims, func(a, b claim) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.node, b.node))
	})
	ranked := make([]Node, len(claims))
	for i, c := range claims {
		ranked[i] = c.node
	}
	return ranked
}

// score hashes node and key. FNV alone spreads its last bytes badly, so the sum goes through the finalizer of MurmurHash3.
func (k Key) score(node string) uint64 {
	sum := fnv.New64a()
	for _, part := range [...]string{node, string(k.tenant), string(k.repository), k.kind, k.name} {
		_, _ = io.WriteString(sum, part) // a hash never fails
		_, _ = sum.Write([]byte{0})      // so that ("ab", "c") and ("a", "bc") differ
	}
	x := sum.Sum64()
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
