package figure_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ocistern/ocistern/e2e/figure"
)

// A system that is slow must not come out well.
func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		figure figure.Figure
		want   string
	}{
		{figure.Figure{Name: "a", Unit: figure.PerSecond, Ours: 200, Peer: 100, Target: figure.AtLeast(2)}, `200/s +100/s +2\.00x +>=2\.00x reached`},
		{figure.Figure{Name: "a", Unit: figure.PerSecond, Ours: 199, Peer: 100, Target: figure.AtLeast(2)}, `199/s +100/s +1\.99x +>=2\.00x short`},
		{figure.Figure{Name: "a", Unit: figure.Seconds, Ours: 2, Target: figure.AtMost(3)}, `2s +- +- +<=3s reached`},
		{figure.Figure{Name: "a", Unit: figure.Seconds, Ours: 3.1, Target: figure.AtMost(3)}, `3\.1s +- +- +<=3s short`},
		{figure.Figure{Name: "a", Unit: figure.Seconds, Ours: 0.021, Peer: 0.01, Target: figure.AtMost(2)}, `21ms +10ms +2\.10x +<=2\.00x short`},
		{figure.Figure{Name: "a", Unit: figure.Bytes, Ours: 12}, `12B +- +- +- -`},
		{figure.Figure{Name: "a", Unit: figure.Count, Ours: 1, Target: figure.AtMost(0)}, `1 +- +- +<=0 short`},
	} {
		var out strings.Builder
		table := figure.Table{Out: &out}
		table.Print(c.figure)
		table.Close()
		if !regexp.MustCompile(c.want).MatchString(out.String()) {
			t.Errorf("%+v prints %q, not %s", c.figure, out.String(), c.want)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var durations []time.Duration
	for i := range 100 {
		durations = append(durations, time.Duration(100-i))
	}
	if p50, p99 := figure.Percentile(durations, 50), figure.Percentile(durations, 99); p50 != 51 || p99 != 100 {
		t.Errorf("p50 %d, p99 %d", p50, p99)
	}
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3, 1, 2}, 2}, {[]float64{4, 1, 2, 3}, 2.5}, {[]float64{7}, 7}} {
		if got := figure.Median(c.values); got != c.want {
			t.Errorf("the median of %v is %v, want %v", c.values, got, c.want)
		}
	}
}
