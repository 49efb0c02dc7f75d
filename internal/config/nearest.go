package config

import (
	"strings"

	"github.com/ocistern/ocistern/internal/errdef"
)

// withNearest adds the known word nearest to an unknown one as remedy, or all known words where none is near.
func withNearest(wrong *errdef.Error, word string, known []string) *errdef.Error {
	if near := nearest(word, known); near != "" {
		return wrong.WithRemedy("did you mean %s?", near)
	}
	return wrong.WithRemedy("known are %s", strings.Join(known, ", "))
}

func nearest(word string, known []string) string {
	if len(word) > maxShown {
		return ""
	}
	best, bestDistance := "", max(2, len(word)/3)+1
	for _, candidate := range known {
		// Right word in the wrong section, the usual slip of indentation.
		if lastSegment(candidate) == lastSegment(word) {
			return candidate
		}
		if d := distance(word, candidate); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

func lastSegment(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// distance is Levenshtein's: the least number of bytes inserted, removed or replaced.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

func knownKeys() []string {
	var keys []string
	for _, s := range Settings() {
		keys = append(keys, s.Key)
	}
	return keys
}
