package catalog

import (
	"strings"

	"github.com/tidwall/btree"

	"github.com/ocistern/ocistern/internal/reference"
)

// key orders records by tenant, then repository, then name, so that one repository's records lie together.
type key struct {
	tenant     reference.Tenant
	repository reference.Repository
	name       string
}

func (k key) compare(other key) int {
	if c := strings.Compare(string(k.tenant), string(other.tenant)); c != 0 {
		return c
	}
	if c := strings.Compare(string(k.repository), string(other.repository)); c != 0 {
		return c
	}
	return strings.Compare(k.name, other.name)
}

// within tells whether k belongs to a repository.
func (k key) within(t reference.Tenant, r reference.Repository) bool {
	return k.tenant == t && k.repository == r
}

// item is one record in a tree. Records are never changed in place: a snapshot may hold them.
type item[V any] struct {
	key   key
	value *V
}

// tree is a copy-on-write B-tree (DESIGN.md tells why this one). A copy costs O(1); afterwards the writer copies the
// nodes it changes, so whoever holds the copy reads it without a lock. Only the writer of the catalog calls copy, set
// and remove.
type tree[V any] struct {
	items *btree.BTreeG[item[V]]
}

func newTree[V any]() tree[V] {
	less := func(a, b item[V]) bool { return a.key.compare(b.key) < 0 }
	return tree[V]{items: btree.NewBTreeGOptions(less, btree.Options{NoLocks: true})}
}

func (t tree[V]) copy() tree[V] { return tree[V]{items: t.items.Copy()} }

func (t tree[V]) len() int { return t.items.Len() }

func (t tree[V]) get(k key) (*V, bool) {
	found, ok := t.items.Get(item[V]{key: k})
	return found.value, ok
}

func (t tree[V]) set(k key, value *V) { t.items.Set(item[V]{key: k, value: value}) }

func (t tree[V]) remove(k key) { t.items.Delete(item[V]{key: k}) }

// ascend calls yield for the records from a key on, in order, until it returns false.
func (t tree[V]) ascend(from key, yield func(key, *V) bool) {
	t.items.Ascend(item[V]{key: from}, func(found item[V]) bool { return yield(found.key, found.value) })
}

// state is the whole catalog. The writer changes one state; a Snapshot is a frozen copy of it.
type state struct {
	index       LogIndex
	clusterID   string
	commandHash [32]byte
	level       FeatureLevel
	outcomes    outcomes
	formers     []string // replaced, never changed

	tags      tree[Tag]
	manifests tree[Manifest]
	referrers tree[Referrers]
	// subjects has a record (subject, then referrer) for each manifest that names a subject.
	subjects tree[struct{}]
	absences tree[Absence]
	// expiries has the key of each absence, ordered by when it expires.
	expiries tree[key]
	links    tree[link]
	blobs    tree[Blob]
	asking
}

// asking is what the nodes have to know before they ask upstreams.
type asking struct {
	backoffs      tree[Backoff] // by the name of the upstream
	invalidations invalidations
}

func newState() *state {
	return &state{
		level: LevelFirst, tags: newTree[Tag](), manifests: newTree[Manifest](), referrers: newTree[Referrers](), subjects: newTree[struct{}](),
		absences: newTree[Absence](), expiries: newTree[key](), links: newTree[link](), blobs: newTree[Blob](),
		asking: asking{backoffs: newTree[Backoff]()},
	}
}

func (s *state) copy() *state {
	frozen := *s
	frozen.tags, frozen.manifests, frozen.referrers = s.tags.copy(), s.manifests.copy(), s.referrers.copy()
	frozen.subjects, frozen.absences, frozen.expiries = s.subjects.copy(), s.absences.copy(), s.expiries.copy()
	frozen.links, frozen.blobs, frozen.outcomes = s.links.copy(), s.blobs.copy(), s.outcomes.copy()
	frozen.backoffs = s.backoffs.copy()
	return &frozen
}
