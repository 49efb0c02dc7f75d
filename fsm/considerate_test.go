package fsm

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ocistern/ocistern/fsm/catalog"
)

// slow takes a while for each write.
type slow struct {
	bytes.Buffer
	takes time.Duration
}

func (s *slow) Write(p []byte) (int, error) {
	<-time.After(s.takes)
	return s.Buffer.Write(p)
}

// A snapshot that raft takes works a fifth of the time, and without breaks as soon as raft waits for it.
func TestSnapshotsTakeBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hurry := make(chan struct{})
		to := &slow{takes: 10 * time.Millisecond}
		c := &considerate{to: to, since: time.Now(), hurry: hurry}
		write := func(times int) time.Duration {
			began := time.Now()
			for range times {
				if n, err := c.Write([]byte("x")); n != 1 || err != nil {
					t.Fatalf("wrote %d bytes, %v", n, err)
				}
			}
			return time.Since(began)
		}
		if took := write(100); took != 100*to.takes*(1+breakShare) {
			t.Errorf("with breaks it took %s", took)
		}
		to.takes = time.Second
		if took := write(1); took != to.takes+maxBreak {
			t.Errorf("with one long break it took %s", took)
		}
		close(hurry)
		if took := write(10); took != 10*to.takes {
			t.Errorf("in a hurry it took %s", took)
		}
	})
}

// Only a snapshot of a node that runs is considerate: nobody waits for breaks where Hurry is not set.
func TestBreaksAreAskedFor(t *testing.T) {
	hurry := make(chan struct{})
	for _, c := range []struct {
		hurry <-chan struct{}
		want  bool
	}{{nil, false}, {hurry, true}} {
		f := New(catalog.New(), Options{Hurry: c.hurry})
		taken, err := f.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if got := taken.(persister).hurry != nil; got != c.want {
			t.Errorf("breaks: %t, want %t", got, c.want)
		}
	}
}
