package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ticksPerSecond is the unit of /proc/PID/stat, the same on all Linux systems that matter.
const ticksPerSecond = 100

// processorTime returns the time that processes have kept processors busy; for no process, that of this one.
func processorTime(pids ...int) (time.Duration, error) {
	if len(pids) == 0 {
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			return 0, err
		}
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
	}
	var sum time.Duration
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(text), ") ") // after the name: state is field 3, utime 14, stime 15
		fields := strings.Fields(rest)
		for i := 11; i <= 12 && i < len(fields); i++ {
			ticks, err := strconv.ParseInt(fields[i], 10, 64)
			if err != nil {
				return 0, err
			}
			sum += time.Duration(ticks) * time.Second / ticksPerSecond
		}
	}
	return sum, nil
}

// effort is what a number of operations cost in time of processors.
type effort struct{ system, load time.Duration }

func effortSince(begin effort, pids []int) (effort, error) {
	system, err := processorTime(pids...)
	if err != nil {
		return effort{}, err
	}
	load, err := processorTime()
	return effort{system: system - begin.system, load: load - begin.load}, err
}

// per prints the effort of one of n operations.
func (e effort) per(n int) string {
	if n == 0 {
		return "none"
	}
	each := func(d time.Duration) time.Duration { return (d / time.Duration(n)).Round(100 * time.Nanosecond) }
	return fmt.Sprintf("%s of the nodes and %s of the load for each", each(e.system), each(e.load))
}
