package upstream

import (
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Limit is how many reads a registry answers in each window of time. It answers more of them with 429 and a Retry-After, in
// whole seconds, of when the window ends. The zero value is no limit.
type Limit struct {
	Reads  int
	Window time.Duration
}

// limiter counts the reads of the window that goes on.
type limiter struct {
	mu    sync.Mutex // guards what follows
	limit Limit
	ends  time.Time
	reads int
}

func (l *limiter) set(limit Limit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit, l.ends = limit, time.Time{}
}

// refuse tells whether a read is one too many, and after how many seconds it may come back.
func (l *limiter) refuse(now time.Time) (retryAfter int, refused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limit.Reads == 0 {
		return 0, false
	}
	if !now.Before(l.ends) {
		l.ends, l.reads = now.Add(l.limit.Window), 0
	}
	if l.reads < l.limit.Reads {
		l.reads++
		return 0, false
	}
	return int(math.Ceil(l.ends.Sub(now).Seconds())), true
}

func tooMany(w http.ResponseWriter, retryAfter int) {
	w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	http.Error(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"the limit of the test registry"}]}`, http.StatusTooManyRequests)
}
