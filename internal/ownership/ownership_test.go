package ownership_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/ownership"
	"github.com/ocistern/ocistern/internal/reference"
)

const (
	tenant     = reference.DefaultTenant
	repository = reference.Repository("up.test/org/app")
)

func TestRankIsAgreedAndEven(t *testing.T) {
	type node string
	nodes := []node{"a", "b", "c", "d", "e"}
	owned := map[node]int{}
	const keys = 10_000
	for n := range keys {
		key := ownership.Tag(tenant, repository, fmt.Sprint("key", n))
		ranked := ownership.Rank(key, nodes)
		reversed := slices.Clone(nodes)
		slices.Reverse(reversed)
		if !slices.Equal(ranked, ownership.Rank(key, reversed)) {
			t.Fatalf("the order of the members changes the rank of %v", key)
		}
		owned[ranked[0]]++
		without := slices.DeleteFunc(slices.Clone(nodes), func(node node) bool { return node == ranked[0] })
		if !slices.Equal(ranked[1:], ownership.Rank(key, without)) {
			t.Fatalf("when the owner of %v goes, more than its own keys move", key)
		}
	}
	for node, count := range owned {
		if fair := keys / len(nodes); count < fair*9/10 || count > fair*11/10 {
			t.Errorf("%s owns %d of %d keys", node, count, keys)
		}
	}
}

// Builds that disagree would fetch twice. These ranks are those of the first build; they never change.
func TestRanksOfAllBuilds(t *testing.T) {
	nodes := []string{"n1", "n2", "n3", "n4", "n5"}
	dgst := digest.FromString("content")
	for name, c := range map[string]struct {
		key  ownership.Key
		want []string
	}{
		"tag":          {ownership.Tag(tenant, repository, "v1"), []string{"n4", "n5", "n1", "n3", "n2"}},
		"referrers":    {ownership.Referrers(tenant, repository, dgst), []string{"n1", "n3", "n2", "n5", "n4"}},
		"manifest":     {ownership.Manifest(tenant, repository, dgst), []string{"n4", "n1", "n5", "n2", "n3"}},
		"blob":         {ownership.Blob(tenant, repository, dgst), []string{"n5", "n4", "n2", "n1", "n3"}},
		"other tenant": {ownership.Blob("other", repository, dgst), []string{"n5", "n2", "n3", "n4", "n1"}},
	} {
		if got := ownership.Rank(c.key, nodes); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// One name of two kinds has two owners, as often as not; else the load of a tag and its like would meet at one node.
func TestKindsAreApart(t *testing.T) {
	nodes := []string{"n1", "n2", "n3"}
	apart := 0
	for n := range 1000 {
		dgst := digest.FromString(fmt.Sprint(n))
		manifest, blob := ownership.Manifest(tenant, repository, dgst), ownership.Blob(tenant, repository, dgst)
		if ownership.Rank(manifest, nodes)[0] != ownership.Rank(blob, nodes)[0] {
			apart++
		}
	}
	if apart < 600 || apart > 730 {
		t.Errorf("%d of 1000 digests have two owners, want two thirds", apart)
	}
}
