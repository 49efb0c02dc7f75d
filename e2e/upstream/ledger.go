package upstream

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Request is one read that reached the registry.
type Request struct {
	Object Object
	Method string
	// Status is what was answered, 0 when the connection was broken off.
	Status int
}

// Ledger counts the reads that a registry was asked for. All methods are safe for concurrent use.
type Ledger struct {
	mu       sync.Mutex // guards requests
	requests []Request
}

func (l *Ledger) add(request Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests = append(l.requests, request)
}

// Reset forgets all requests.
func (l *Ledger) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests = nil
}

// Requests returns all reads since the last reset, in the order in which they were answered.
func (l *Ledger) Requests() []Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.requests)
}

// Count returns the number of reads of the given kinds, of all kinds when none is given.
func (l *Ledger) Count(kinds ...Kind) int {
	count := 0
	for _, request := range l.Requests() {
		if len(kinds) == 0 || slices.Contains(kinds, request.Object.Kind) {
			count++
		}
	}
	return count
}

// Fetched returns the number of different objects of the given kinds whose content was given away.
func (l *Ledger) Fetched(kinds ...Kind) int {
	fetched := map[Object]bool{}
	for _, request := range l.Requests() {
		given := request.Method == http.MethodGet && request.Status == http.StatusOK
		if given && slices.Contains(kinds, request.Object.Kind) {
			fetched[request.Object] = true
		}
	}
	return len(fetched)
}

// Objects returns how often each object was asked for.
func (l *Ledger) Objects() map[Object]int {
	objects := map[Object]int{}
	for _, request := range l.Requests() {
		objects[request.Object]++
	}
	return objects
}

// Repeated returns an error that names every object asked for more than once, or nil.
func (l *Ledger) Repeated() error {
	var lines []string
	for object, count := range l.Objects() {
		if count > 1 {
			lines = append(lines, fmt.Sprintf("%d times %s", count, object))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	slices.Sort(lines)
	return fmt.Errorf("the registry was asked more than once for the same object:\n  %s", strings.Join(lines, "\n  "))
}
