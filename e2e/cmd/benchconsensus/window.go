package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ocistern/ocistern/e2e/nodes"
)

// window is a time in which a node took a snapshot.
type window struct{ begin, end time.Time }

// watchSnapshots looks at the nodes' disks until so many of them have taken a snapshot, or ctx ends. Raft writes a snapshot into a
// directory with a suffix, which is renamed when the whole is durable.
func watchSnapshots(ctx context.Context, cluster *nodes.Cluster, wanted int) ([]window, error) {
	poll := time.NewTicker(snapshotPoll)
	defer poll.Stop()
	running := cluster.Running()
	begun := make([]time.Time, len(running)) // zero while the node takes none
	taken := map[int]bool{}
	var windows []window
	for len(taken) < wanted {
		select {
		case now := <-poll.C:
			for i, node := range running {
				writing, err := takesSnapshot(node)
				switch {
				case err != nil:
					return nil, err
				case writing && begun[i].IsZero():
					begun[i] = now
				case !writing && !begun[i].IsZero():
					windows = append(windows, window{begin: begun[i], end: now})
					begun[i] = time.Time{}
					taken[i] = true
				}
			}
		case <-ctx.Done():
			return windows, ctx.Err()
		}
	}
	return windows, nil
}

func takesSnapshot(node *nodes.Node) (bool, error) {
	entries, err := os.ReadDir(filepath.Join(node.DataDir(), "raft", "snapshots"))
	if err != nil && !os.IsNotExist(err) {
		return false, err
	}
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasSuffix(e.Name(), ".tmp") }), nil
}

// union joins windows that overlap, in the order of time.
func union(windows []window) []window {
	sorted := slices.SortedFunc(slices.Values(windows), func(a, b window) int { return a.begin.Compare(b.begin) })
	var joined []window
	for _, w := range sorted {
		if last := len(joined) - 1; last >= 0 && !w.begin.After(joined[last].end) {
			if w.end.After(joined[last].end) {
				joined[last].end = w.end
			}
			continue
		}
		joined = append(joined, w)
	}
	return joined
}

// overlaps tells whether an operation was under way in one of the windows.
func overlaps(windows []window, s sample) bool {
	end := s.began.Add(s.took)
	return slices.ContainsFunc(windows, func(w window) bool { return s.began.Before(w.end) && end.After(w.begin) })
}
