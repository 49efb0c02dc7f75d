package fill

import (
	"testing"
	"time"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/policy"
	"github.com/ocistern/ocistern/internal/reference"
)

// The times that a refresh writes into the catalog are those of the policy of its repository, for each kind of answer.
func TestFreshnessIsThatOfTheRepository(t *testing.T) {
	r := newTestRegistry(t)
	special := policy.Rule{
		Match: "up.test/org/special", FreshFor: new(time.Hour), StaleFor: new(2 * time.Hour), AbsentFor: new(3 * time.Second),
		ReferrersFreshFor: new(4 * time.Hour),
	}
	set, err := policy.NewSet([]policy.Rule{special})
	if err != nil {
		t.Fatal(err)
	}
	c := newTestCluster(t, r)
	for _, n := range c.nodes {
		n.filler.Policies = set
	}
	ordinary := policy.Default()
	for path, want := range map[string]policy.Policy{
		"org/app": ordinary,
		"org/special": {
			FreshFor: *special.FreshFor, StaleFor: *special.StaleFor, AbsentFor: *special.AbsentFor,
			ReferrersFreshFor: *special.ReferrersFreshFor,
		},
	} {
		image, _ := r.pushImage(path, "v1", layer(10, path))
		repository := reference.Repository("up.test/" + path)
		refresh := func(kind Kind, ref string) error {
			key := Key{Tenant: testTenant, Repository: repository, Kind: kind, Reference: ref}
			_, err := c.nodes[0].router.Refresh(t.Context(), key, 0)
			return err
		}
		tagged, listed, missed := refresh(KindTag, "v1"), refresh(KindReferrers, image.Digest.String()), refresh(KindTag, "nope")
		if tagged != nil || listed != nil || errdef.ReasonOf(missed) != errdef.NotFound {
			t.Fatalf("%s: %v, %v, %v", path, tagged, listed, missed)
		}
		snapshot := c.nodes[0].catalog.Snapshot()
		tag, _ := snapshot.Tag(testTenant, repository, "v1")
		list, _ := snapshot.Referrers(testTenant, repository, image.Digest)
		absence, _ := snapshot.Absence(testTenant, repository, catalog.AbsentTag, "nope")
		for what, lasts := range map[string]struct {
			got         catalog.Freshness
			fresh, more time.Duration
		}{
			"tag":       {tag.Freshness, want.FreshFor, want.StaleFor},
			"referrers": {list.Freshness, want.ReferrersFreshFor, want.StaleFor},
			"absence":   {absence.Freshness, want.AbsentFor, 0},
		} {
			fresh, more := lasts.got.FreshUntil.Sub(lasts.got.Observed), lasts.got.StaleUntil.Sub(lasts.got.FreshUntil)
			if fresh != lasts.fresh || more != lasts.more {
				t.Errorf("%s of %s is fresh for %s and stale for %s, want %s and %s", what, path, fresh, more, lasts.fresh, lasts.more)
			}
		}
	}
}
