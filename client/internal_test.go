package client

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
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
