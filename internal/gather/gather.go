// Package gather joins questions that are asked at the same time into one call: while a call is under way, those who come
// share the next one. Whoever comes alone does not wait for company.
//
// It knows neither what is asked nor how: the client library gathers reads with it, peers gather commands.
package gather

import (
	"context"
	"runtime"
	"slices"
	"sync"
)

// Config says how to gather.
type Config[Q, A any] struct {
	// Call answers questions, one answer for each in their order, or all of them with one error. Its context ends when
	// nobody waits any more. Required.
	Call func(ctx context.Context, questions []Q) ([]A, error)
	// Weight is what a question takes of Capacity, the most that one call may carry. A question that is heavier than that
	// is asked alone. Both required.
	Weight   func(Q) int
	Capacity int
	// Lanes is the number of calls that may be under way; at least 1.
	Lanes int
}

// Gatherer gathers questions. It is safe for concurrent use, starts nothing and needs no closing.
type Gatherer[Q, A any] struct {
	config Config[Q, A]

	mutex   sync.Mutex // guards what follows, and the batches until they are taken from waiting
	busy    int        // lanes
	waiting []*batch[Q, A]
}

// batch is what goes into one call. answers and err are set before done is closed.
type batch[Q, A any] struct {
	questions []Q
	weight    int
	callers   int // that still wait; the last one that leaves cancels

	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}

	answers []A
	err     error
}

// New returns a Gatherer.
func New[Q, A any](config Config[Q, A]) *Gatherer[Q, A] { return &Gatherer[Q, A]{config: config} }

// Ask returns the answer to one question, or the error of the call that carried it. When ctx ends first it returns ctx's
// error; the question may have been asked then, or be asked later together with others.
func (g *Gatherer[Q, A]) Ask(ctx context.Context, question Q) (A, error) {
	b, place := g.join(question)
	select {
	case <-b.done:
		if b.err != nil {
			var none A
			return none, b.err
		}
		return b.answers[place], nil
	case <-ctx.Done():
		g.leave(b)
		var none A
		return none, ctx.Err()
	}
}

// join puts a question into a batch that has not been sent, and starts a lane for it when one is free.
func (g *Gatherer[Q, A]) join(question Q) (b *batch[Q, A], place int) {
	weight := g.config.Weight(question)
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if last := len(g.waiting) - 1; last >= 0 && g.waiting[last].weight+weight <= g.config.Capacity {
		b = g.waiting[last]
	} else {
		b = &batch[Q, A]{done: make(chan struct{})}
		b.ctx, b.cancel = context.WithCancel(context.Background())
		g.waiting = append(g.waiting, b)
	}
	b.questions = append(b.questions, question)
	b.weight += weight
	b.callers++
	if g.busy < max(1, g.config.Lanes) {
		g.busy++
		go g.serve()
	}
	return b, len(b.questions) - 1
}

// leave gives up on a batch. Its question stays: others' places must not move.
func (g *Gatherer[Q, A]) leave(b *batch[Q, A]) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if b.callers--; b.callers > 0 {
		return
	}
	b.cancel()
	g.waiting = slices.DeleteFunc(g.waiting, func(other *batch[Q, A]) bool { return other == b })
}

// serve is one lane: it makes one call after the other until nobody waits.
func (g *Gatherer[Q, A]) serve() {
	for {
		runtime.Gosched() // who has just been answered may ask again, and share the next call
		g.mutex.Lock()
		if len(g.waiting) == 0 {
			g.busy--
			g.mutex.Unlock()
			return
		}
		b := g.waiting[0]
		g.waiting = g.waiting[1:]
		g.mutex.Unlock()
		b.answers, b.err = g.config.Call(b.ctx, b.questions)
		close(b.done)
		b.cancel()
	}
}
