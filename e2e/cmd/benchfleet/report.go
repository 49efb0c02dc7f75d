package main

import (
	"fmt"
	"math"
	"time"

	"github.com/ocistern/ocistern/e2e/figure"
	"github.com/ocistern/ocistern/internal/policy"
)

// report prints a line for each storm, and judges those of Ocistern at the end.
type report struct {
	bench *bench
	ours  map[bool]measured // by whether the registry was down
}

func newReport(b *bench) *report {
	r := &report{bench: b, ours: map[bool]measured{}}
	fmt.Fprintf(b.out, "%d pods in %s, time compressed %gx; %d replicas, %d images with %d signatures, %d reads a minute, deadline %s\n",
		b.pods, b.lasting, b.clock.factor, b.replicas, len(b.images), signatures, b.reads, b.deadline)
	return r
}

func (r *report) title(down bool) {
	title := "the registry is up"
	if down {
		title = "the registry is down for the middle third"
	}
	fmt.Fprintf(r.bench.out, "\n%-42s %8s %8s %8s %8s %8s %8s %8s\n", title, "requests", "429s", "timeouts", "failures", "p50", "p95", "p99")
}

func (r *report) add(name string, down bool, m measured) {
	quantile := func(p float64) string { return figure.Percentile(m.took, p).Round(10 * time.Millisecond).String() }
	fmt.Fprintf(r.bench.out, "%-42s %8d %8d %8d %8d %8s %8s %8s\n", name, m.requests, m.throttled, m.timeouts, m.failures,
		quantile(50), quantile(95), quantile(99))
	if m.first != nil {
		r.bench.progress("%s: %d pods were not admitted, the first since: %v", name, m.timeouts+m.failures, m.first)
	}
	r.ours[down] = m // the last one of each is Ocistern
}

// close judges.
func (r *report) close() {
	b := r.bench
	fmt.Fprintln(b.out)
	table := figure.Table{Out: b.out}
	nothing, periods := figure.AtMost(0), math.Ceil(b.lasting.Seconds()/policy.Default().FreshFor.Seconds())
	objects := float64(len(b.images) * readsOfImage)
	for _, c := range []struct {
		name   string
		value  int
		target figure.Target
	}{
		{"timeouts", r.ours[false].timeouts, nothing},
		{"failures", r.ours[false].failures, nothing},
		{"registry-requests", r.ours[false].requests, figure.AtMost(objects * periods)},
		{"timeouts-registry-down", r.ours[true].timeouts, nothing},
		{"failures-registry-down", r.ours[true].failures, nothing},
	} {
		table.Print(figure.Figure{Name: c.name, Unit: figure.Count, Ours: float64(c.value), Target: c.target})
	}
	table.Close()
}
