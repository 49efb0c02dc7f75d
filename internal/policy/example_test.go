package policy_test

import (
	"fmt"
	"time"

	"github.com/ocistern/ocistern/internal/policy"
)

// Rules go from the general to the special: the last one that sets a field wins.
func Example() {
	hour, none := time.Hour, time.Duration(0)
	set, err := policy.NewSet([]policy.Rule{
		{Match: "ghcr.io/**", FreshFor: &hour, ImmutableTags: []string{"v*.*.*"}},
		{Match: "ghcr.io/org/nightly", FreshFor: &none},
	})
	if err != nil {
		panic(err)
	}
	for _, field := range set.Explain("ghcr.io/org/nightly")[:3] {
		fmt.Println(field.Name, field.Value, "from", field.Origin)
	}
	fmt.Println(set.For("ghcr.io/org/app").IsImmutable("v1.2.3"))
	// Output:
	// fresh-for 0s from rule 2 (ghcr.io/org/nightly)
	// revalidate-for 1m from default
	// stale-for 24h from default
	// true
}
