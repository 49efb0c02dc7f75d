package upstream

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Harm is what a fault does to a response.
type Harm string

// The harms. Each is something that real registries and the networks before them do.
const (
	// WrongBytes answers with one byte changed, headers as they should be.
	WrongBytes Harm = "wrong-bytes"
	// Truncated breaks the connection off in the middle of the body.
	Truncated Harm = "truncated"
	// Stalled sends half of the body and then nothing until the caller gives up or the registry stops.
	Stalled Harm = "stalled"
)

// Status is the harm of answering with an HTTP error, for example Status(429).
func Status(code int) Harm { return Harm(strconv.Itoa(code)) }

// Fault says which reads are harmed, how, and how often.
type Fault struct {
	// Kind of objects harmed; empty for all.
	Kind Kind
	// Contains must be a part of the path of the request; empty for all.
	Contains string
	Harm     Harm
	// Times bounds the number of harmed responses; 0 harms all of them until the faults are cleared.
	Times int
}

// faults is the set of faults in force.
type faults struct {
	mu     sync.Mutex // guards active
	active []*fault
}

type fault struct {
	Fault
	left int // harmed responses to come; negative for no bound
}

func (f *faults) add(added Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := added.Times
	if left == 0 {
		left = -1
	}
	f.active = append(f.active, &fault{Fault: added, left: left})
}

func (f *faults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.active = nil
}

// take returns the harm to do to the response of a request, and counts it; empty for none.
func (f *faults) take(object Object, request *http.Request) Harm {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, candidate := range f.active {
		if candidate.left == 0 || !candidate.meets(object, request) {
			continue
		}
		candidate.left--
		return candidate.Harm
	}
	return ""
}

// meets tells whether a fault concerns a request. A HEAD has no body that could be harmed, only a status.
func (f *fault) meets(object Object, request *http.Request) bool {
	if request.Method == http.MethodHead && slices.Contains([]Harm{WrongBytes, Truncated, Stalled}, f.Harm) {
		return false
	}
	return (f.Kind == "" || f.Kind == object.Kind) && strings.Contains(request.URL.Path, f.Contains)
}

// answer writes a recorded response to the caller, harmed.
func (h Harm) answer(w http.ResponseWriter, request *http.Request, recorded *recorder) {
	if code, err := strconv.Atoi(string(h)); err == nil {
		http.Error(w, `{"errors":[{"code":"UNKNOWN","message":"a fault of the test registry"}]}`, code)
		return
	}
	for name, values := range recorded.Header() {
		w.Header()[name] = values
	}
	body := recorded.body.Bytes()
	if h == WrongBytes && len(body) > 0 {
		body[len(body)/2] ^= 0x20
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(recorded.status)
	if h == WrongBytes {
		_, _ = w.Write(body) // a caller that has gone is no matter of the registry
		return
	}
	_, _ = w.Write(body[:len(body)/2])
	_ = http.NewResponseController(w).Flush()
	if h == Stalled {
		<-request.Context().Done()
	}
	panic(http.ErrAbortHandler) // how net/http breaks a connection off
}
