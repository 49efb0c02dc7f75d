package client

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/ownership"
	"github.com/ocistern/ocistern/internal/reference"
)

func TestPoolOrder(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := newPool([]*endpoint{{address: "0"}, {address: "1"}, {address: "2"}})
	expect := func(step string, at time.Time, want ...int) {
		t.Helper()
		if got := p.order(at); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", step, got, want)
		}
	}
	p.succeeded(1)
	expect("from the current one on", now, 1, 2, 0)
	p.failed(1, now)
	expect("put aside", now, 2, 0, 1)
	p.failed(2, now)
	p.failed(2, now) // twice: for longer
	expect("the shorter aside first", now, 0, 1, 2)
	expect("time is up for one", now.Add(asideFirst), 1, 0, 2)
	p.failed(0, now)
	expect("nobody is left out", now, 1, 0, 2)
	p.succeeded(2)
	expect("an answer makes it current", now, 2, 0, 1)
	for range 100 {
		if aside := p.failed(0, now); aside <= 0 || aside > asideMost {
			t.Fatalf("aside for %s", aside)
		}
	}
}

// Content is asked for at its owner first; nobody is left out; and a node that has failed is a stranger.
func TestPoolOwned(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	key := ownership.Blob("default", "up.test/org/app", digest.FromString("content"))
	ranked := ownership.Rank(key, []string{"n0", "n1", "n2"})
	at := func(rank int) int { return int(ranked[rank][1] - '0') }
	p := newPool([]*endpoint{{address: "0"}, {address: "1"}, {address: "2"}})
	p.succeeded(at(2))
	expect := func(step string, when time.Time, order, strangers []int) {
		t.Helper()
		gotOrder, gotStrangers := p.owned(when, key)
		slices.Sort(strangers)
		slices.Sort(gotStrangers)
		if !slices.Equal(gotOrder, order) || !slices.Equal(gotStrangers, strangers) {
			t.Errorf("%s: %v, strangers %v, want %v, %v", step, gotOrder, gotStrangers, order, strangers)
		}
	}
	expect("nobody known", now, p.order(now), []int{0, 1, 2})
	expect("asked a moment ago", now, p.order(now), nil)
	expect("asked in vain: for longer", now.Add(2*learnPause-1), p.order(now), nil)
	expect("asked again", now.Add(2*learnPause), p.order(now), []int{0, 1, 2})
	p.learned(at(0), leading(ranked[0]), now.Add(2*learnPause))
	expect("one known", now, append([]int{at(0)}, slices.DeleteFunc(p.order(now), func(i int) bool { return i == at(0) })...), nil)
	p.learned(at(1), leading(ranked[1]), time.Time{})
	p.learned(at(2), leading(ranked[2]), time.Time{})
	expect("all known", now, []int{at(0), at(1), at(2)}, nil)
	p.answered(at(0))
	if first := p.order(now)[0]; first != at(2) {
		t.Errorf("other calls begin at %d, want %d, where they were", first, at(2))
	}

	now = now.Add(time.Hour) // since they were learned
	p.failed(at(0), now)
	expect("the owner has failed", now, []int{at(1), at(2), at(0)}, nil)
	p.learned(at(0), leading(ranked[0]), now.Add(-time.Second))
	expect("what it said before", now.Add(asideMost), []int{at(1), at(2), at(0)}, nil)
	p.learned(at(0), leading(ranked[0]), time.Time{})
	expect("what it says to others", now.Add(asideMost), []int{at(1), at(2), at(0)}, nil)
	now = now.Add(2 * learnPause)
	expect("it is asked who it is", now, []int{at(1), at(2), at(0)}, []int{at(0)})
	p.learned(at(0), &Status{Node: Member{ID: ranked[0]}}, now)
	expect("it has no leader", now, []int{at(1), at(2), at(0)}, nil)
	p.learned(at(0), leading(ranked[0]), now)
	expect("it has said so", now, []int{at(0), at(1), at(2)}, nil)
	p.failed(at(0), now)
	expect("it fails again: for longer", now.Add(2*learnPause), []int{at(1), at(2), at(0)}, nil)
	expect("asked again", now.Add(4*learnPause), []int{at(1), at(2), at(0)}, []int{at(0)})
	p.learned(at(0), leading(ranked[1]), now.Add(4*learnPause))
	expect("two endpoints of one node", now.Add(4*learnPause), []int{at(1), at(2), at(0)}, nil)
	alone := newPool([]*endpoint{{address: "0"}})
	if order, strangers := alone.owned(now, key); len(order) != 1 || len(strangers) > 0 {
		t.Errorf("one endpoint: %v, strangers %v", order, strangers)
	}
}

// One that hangs when it is asked for content is left by other calls, too; else it would cost each its patience again.
func TestPoolLeavesWhoFails(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := newPool([]*endpoint{{address: "0"}, {address: "1"}})
	p.succeeded(0)
	p.failed(0, now)
	p.answered(1)
	if order := p.order(now.Add(time.Hour)); order[0] != 1 {
		t.Errorf("calls begin at %d, which has failed", order[0])
	}
	p.answered(0)
	if order := p.order(now.Add(time.Hour)); order[0] != 1 {
		t.Errorf("calls begin at %d again, though %d is well", order[0], 1)
	}
}

func leading(node string) *Status { return &Status{Leader: "n0", Node: Member{ID: node}} }

// Clients do not all start at the same node.
func TestPoolSpreads(t *testing.T) {
	started := map[int]bool{}
	for range 200 {
		started[newPool(make([]*endpoint, 3)).order(time.Time{})[0]] = true
	}
	if len(started) != 3 {
		t.Errorf("200 clients start at %v of 3 endpoints", started)
	}
}

func FuzzParseInRepository(f *testing.F) {
	repository := &Repository{name: "up.test/org/app", client: &Client{}}
	dgst := "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, seed := range []string{"v1", dgst, "v1@" + dgst, "up.test/org/app:v1", "up.test/org/app@" + dgst, "other/app:v1", "@", ":", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := repository.parse(text)
		if err != nil {
			if !errors.As(err, new(*errdef.Error)) {
				t.Errorf("%q: error without a reason: %v", text, err)
			}
			return
		}
		if parsed.Repository != repository.name || (parsed.Tag == "") == (parsed.Digest == "") {
			t.Fatalf("%q: %+v", text, parsed)
		}
		if again, err := reference.Parse(parsed.String()); err != nil || again != parsed {
			t.Errorf("%q: printed as %s, read as %+v, %v", text, parsed, again, err)
		}
	})
}
