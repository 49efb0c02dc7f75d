package policy

import (
	"strconv"
	"strings"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
)

// field is one row of the table from which rules are checked, applied and explained. Pinned tags are not in it: each is
// a field of its own.
type field struct {
	name  string // as in the configuration
	given func(*Rule) bool
	check func(*Rule) error
	apply func(*Policy, *Rule)
	text  func(*Policy) string
}

func fields() []field {
	return []field{
		scalar("fresh-for", MaxTime, timeText,
			func(r *Rule) *time.Duration { return r.FreshFor }, func(p *Policy) *time.Duration { return &p.FreshFor }),
		scalar("revalidate-for", MaxTime, timeText,
			func(r *Rule) *time.Duration { return r.RevalidateFor }, func(p *Policy) *time.Duration { return &p.RevalidateFor }),
		scalar("stale-for", MaxTime, timeText,
			func(r *Rule) *time.Duration { return r.StaleFor }, func(p *Policy) *time.Duration { return &p.StaleFor }),
		scalar("absent-for", MaxTime, timeText,
			func(r *Rule) *time.Duration { return r.AbsentFor }, func(p *Policy) *time.Duration { return &p.AbsentFor }),
		scalar("referrers-fresh-for", MaxTime, timeText, func(r *Rule) *time.Duration { return r.ReferrersFreshFor },
			func(p *Policy) *time.Duration { return &p.ReferrersFreshFor }),
		{
			name:  "immutable-tags",
			given: func(r *Rule) bool { return r.ImmutableTags != nil },
			check: func(*Rule) error { return nil },
			apply: func(p *Policy, r *Rule) { p.Immutable = r.ImmutableTags },
			text:  func(p *Policy) string { return strings.Join(p.Immutable, ", ") },
		},
		scalar("prefetch-depth", MaxPrefetchDepth, strconv.Itoa,
			func(r *Rule) *int { return r.PrefetchDepth }, func(p *Policy) *int { return &p.PrefetchDepth }),
		scalar("prefetch-bytes", MaxPrefetchBytes, bytesText,
			func(r *Rule) *int64 { return r.PrefetchBytes }, func(p *Policy) *int64 { return &p.PrefetchBytes }),
	}
}

// scalar is the row of a number from 0 to most.
func scalar[T int | int64 | time.Duration](
	name string, most T, text func(T) string, given func(*Rule) *T, place func(*Policy) *T,
) field {
	return field{
		name:  name,
		given: func(r *Rule) bool { return given(r) != nil },
		check: func(r *Rule) error {
			if value := given(r); value != nil && (*value < 0 || *value > most) {
				return errdef.New(errdef.ConfigInvalid, "%s of %s is out of bounds", name, text(*value)).
					WithRemedy("0 to %s", text(most))
			}
			return nil
		},
		apply: func(p *Policy, r *Rule) { *place(p) = *given(r) },
		text:  func(p *Policy) string { return text(*place(p)) },
	}
}

// timeText prints 5m rather than 5m0s. The configuration reads it back.
func timeText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// bytesText prints a size with the largest unit that needs no fraction. The configuration reads it back.
func bytesText(n int64) string {
	for _, unit := range []struct {
		name string
		bits int
	}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}} {
		if n != 0 && n%(1<<unit.bits) == 0 {
			return strconv.FormatInt(n>>unit.bits, 10) + unit.name
		}
	}
	return strconv.FormatInt(n, 10)
}
