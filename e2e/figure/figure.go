// Package figure prints what a benchmark has measured: one line a figure, beside its peer and its target. The benchmarks of
// this module use it; it measures nothing.
package figure

import (
	"fmt"
	"io"
	"time"
)

// Unit prints a value.
type Unit func(float64) string

// The units.
var (
	PerSecond Unit = func(v float64) string { return fmt.Sprintf("%.0f/s", v) }
	Ratio     Unit = func(v float64) string { return fmt.Sprintf("%.2fx", v) }
	Bytes     Unit = func(v float64) string { return fmt.Sprintf("%.0fB", v) }
	Count     Unit = func(v float64) string { return fmt.Sprintf("%.0f", v) }
)

// Seconds prints a duration that is given in seconds.
func Seconds(v float64) string {
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

// Figure is one line of the table. The target is about the ratio of ours to the peer's where there is a peer, else about
// ours. A figure without a target is there to judge the others by.
type Figure struct {
	Name   string
	Unit   Unit
	Ours   float64
	Peer   float64 // 0 for none
	Target Target
}

// Target is a bound; the zero value is none.
type Target struct {
	bound       float64
	most, given bool
}

// AtLeast is the least that is wanted.
func AtLeast(bound float64) Target { return Target{bound: bound, given: true} }

// AtMost is the most that is wanted.
func AtMost(bound float64) Target { return Target{bound: bound, most: true, given: true} }

func (t Target) reached(value float64) bool {
	if t.most {
		return value <= t.bound
	}
	return value >= t.bound
}

func (t Target) text(print Unit) string {
	if t.most {
		return "<=" + print(t.bound)
	}
	return ">=" + print(t.bound)
}

// Table prints figures as they come: name ours peer ratio target reached|short.
type Table struct {
	// Out is where to. Required.
	Out            io.Writer
	reached, asked int
	printed        int
}

// Empty tells that nothing was printed.
func (t *Table) Empty() bool { return t.printed == 0 }

// Print prints a line.
func (t *Table) Print(f Figure) {
	t.printed++
	judged, print := f.Ours, f.Unit
	peer, compared, wanted, verdict := "-", "-", "-", "-"
	if f.Peer > 0 {
		judged, print = f.Ours/f.Peer, Ratio
		peer, compared = f.Unit(f.Peer), Ratio(judged)
	}
	if f.Target.given {
		wanted, verdict = f.Target.text(print), "short"
		t.asked++
		if f.Target.reached(judged) {
			t.reached++
			verdict = "reached"
		}
	}
	fmt.Fprintf(t.Out, "%-48s %10s %10s %7s %9s %s\n", f.Name, f.Unit(f.Ours), peer, compared, wanted, verdict)
}

// Close prints how many of the targets were reached.
func (t *Table) Close() { fmt.Fprintf(t.Out, "%d of %d reached\n", t.reached, t.asked) }
