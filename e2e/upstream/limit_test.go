package upstream

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimit(t *testing.T) {
	l := &limiter{}
	l.set(Limit{Reads: 2, Window: 10 * time.Second})
	begin := time.Now()
	for _, c := range []struct {
		at         time.Duration
		retryAfter int
		refused    bool
	}{
		{0, 0, false},
		{time.Second, 0, false},
		{1500 * time.Millisecond, 9, true}, // in whole seconds, never too early
		{9 * time.Second, 1, true},
		{10 * time.Second, 0, false}, // the next window
		{11 * time.Second, 0, false},
		{12 * time.Second, 8, true},
	} {
		retryAfter, refused := l.refuse(begin.Add(c.at))
		if retryAfter != c.retryAfter || refused != c.refused {
			t.Errorf("after %s: refused %t for %d s, want %t for %d s", c.at, refused, retryAfter, c.refused, c.retryAfter)
		}
	}
	none := &limiter{}
	if _, refused := none.refuse(begin); refused {
		t.Error("no limit refuses")
	}
}

// A body of one second of the link takes one second, whatever pieces it is written in, and is counted once.
func TestLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bytesPerSecond = 10 << 20
		counts := 0
		recorded := httptest.NewRecorder()
		p := &passing{
			ResponseWriter: recorded, ctx: t.Context(), link: newLink(bytesPerSecond), count: func(int) { counts++ },
		}
		begin := time.Now()
		for range 10 {
			if n, err := p.Write(make([]byte, bytesPerSecond/10)); err != nil || n != bytesPerSecond/10 {
				t.Fatal(n, err)
			}
		}
		if took := time.Since(begin); took < 950*time.Millisecond || took > time.Second {
			t.Errorf("took %s, want one second", took)
		}
		if counts != 1 || recorded.Code != http.StatusOK || recorded.Body.Len() != bytesPerSecond {
			t.Errorf("counted %d times, answered %d with %d bytes", counts, recorded.Code, recorded.Body.Len())
		}
	})
}
