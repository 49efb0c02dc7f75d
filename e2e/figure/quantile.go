package figure

import (
	"slices"
	"time"
)

// Percentile returns the p-th percentile of durations, which it sorts. There must be one.
func Percentile(durations []time.Duration, p float64) time.Duration {
	slices.Sort(durations)
	return durations[min(len(durations)-1, int(p/100*float64(len(durations))))]
}

// Median returns the middle one, which is not harmed by one bad round.
func Median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
