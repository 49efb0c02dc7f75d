package main

import (
	"fmt"
	"io"
	"time"
)

// unit prints a value.
type unit func(float64) string

func perSecond(v float64) string { return fmt.Sprintf("%.0f/s", v) }
func ratio(v float64) string     { return fmt.Sprintf("%.2fx", v) }
func inBytes(v float64) string   { return fmt.Sprintf("%.0fB", v) }

// duration prints seconds.
func duration(v float64) string {
	d := time.Duration(v * float64(time.Second))
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	default:
		return d.Round(time.Millisecond).String()
	}
}

// figure is one line of the table. The target is about the ratio of ours to the peer's where there is a peer, else about
// ours. A figure without a target is there to judge the others by.
type figure struct {
	name   string
	unit   unit
	ours   float64
	peer   float64 // 0 for none
	target target
}

// target is a bound, the least or the most that is wanted; the zero value is none.
type target struct {
	bound float64
	most  bool
}

func atLeast(bound float64) target { return target{bound: bound} }
func atMost(bound float64) target  { return target{bound: bound, most: true} }

func (t target) reached(value float64) bool {
	if t.most {
		return value <= t.bound
	}
	return value >= t.bound
}

func (t target) text(print unit) string {
	if t.most {
		return "<=" + print(t.bound)
	}
	return ">=" + print(t.bound)
}

// table prints figures as they come: name ours peer ratio target reached|short.
type table struct {
	out            io.Writer
	reached, asked int
}

func (t *table) print(f figure) {
	judged, print := f.ours, f.unit
	peer, compared, wanted, verdict := "-", "-", "-", "-"
	if f.peer > 0 {
		judged, print = f.ours/f.peer, ratio
		peer, compared = f.unit(f.peer), ratio(judged)
	}
	if f.target != (target{}) {
		wanted, verdict = f.target.text(print), "short"
		t.asked++
		if f.target.reached(judged) {
			t.reached++
			verdict = "reached"
		}
	}
	fmt.Fprintf(t.out, "%-30s %10s %10s %7s %9s %s\n", f.name, f.unit(f.ours), peer, compared, wanted, verdict)
}

func (t *table) close() { fmt.Fprintf(t.out, "%d of %d reached\n", t.reached, t.asked) }
