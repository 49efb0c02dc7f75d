package fill

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ocistern/ocistern/blobstore"
)

// Those who come within a quiet time of each other go on together, and nobody waits for ever.
func TestLaterWaits(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, c := range []struct {
		name       string
		come, goOn []time.Duration // since the first one
	}{
		{name: "one alone", come: []time.Duration{0}, goOn: []time.Duration{laterQuiet}},
		{
			name: "one after the other", come: []time.Duration{0, 10 * ms, 30 * ms},
			goOn: []time.Duration{30*ms + laterQuiet, 30*ms + laterQuiet, 30*ms + laterQuiet},
		},
		{
			name: "two apart", come: []time.Duration{0, laterQuiet + ms},
			goOn: []time.Duration{laterQuiet, laterQuiet + ms + laterQuiet},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if went := waitLater(c.come); !slices.Equal(went, c.goOn) {
					t.Errorf("went on at %v, want %v", went, c.goOn)
				}
			})
		})
	}
	t.Run("without end", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var come []time.Duration
			for at := time.Duration(0); at < 3*laterMost; at += laterQuiet / 2 {
				come = append(come, at)
			}
			for i, at := range waitLater(come) {
				if waited := at - come[i]; waited > laterMost {
					t.Errorf("one that came at %v waited for %v, want at most %v", come[i], waited, laterMost)
				}
			}
		})
	})
}

// waitLater returns when each of those who come went on.
func waitLater(come []time.Duration) []time.Duration {
	l, begun := newLater(), time.Now()
	went := make([]time.Duration, len(come))
	for i, at := range come {
		go func() {
			<-time.After(at)
			l.wait(context.Background())
			went[i] = time.Since(begun)
		}()
	}
	<-time.After(come[len(come)-1] + 2*laterMost)
	synctest.Wait()
	return went
}

// Nobody waits when the node ends, and large content has nobody to wait for.
func TestLaterDoesNotKeepAnybody(t *testing.T) {
	t.Parallel()
	store, err := blobstore.Open(t.TempDir(), blobstore.Options{MemoryBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		l, begun := newLater(), time.Now()
		ended, end := context.WithCancel(context.Background())
		end()
		for _, c := range []struct {
			name string
			size int
			life context.Context
		}{{"ended", 10, ended}, {"large", blobstore.SmallBytes + 1, context.Background()}} {
			content := make([]byte, c.size)
			in := verified(t, store, content)
			if err := l.persist(c.life, in); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if _, held := store.Stat(in.Descriptor().Digest); !held {
				t.Errorf("%s: it is not on the disk", c.name)
			}
		}
		if waited := time.Since(begun); waited > 0 {
			t.Errorf("waited for %v", waited)
		}
		<-time.After(laterMost) // the timer has run down
	})
}
