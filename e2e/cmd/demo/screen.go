package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// screen writes results to one stream and progress to another. On a terminal, progress is one line that renews itself;
// elsewhere it is plain lines.
type screen struct {
	out, err io.Writer
	colors   bool
	live     bool // err is a terminal

	mu      sync.Mutex // guards stop and stopped
	stop    chan struct{}
	stopped chan struct{}
}

func newScreen(out, err *os.File) *screen {
	return &screen{
		out: out, err: err, live: term.IsTerminal(int(err.Fd())),
		colors: term.IsTerminal(int(out.Fd())) && os.Getenv("NO_COLOR") == "",
	}
}

// Styles of a terminal (ECMA-48, select graphic rendition).
const (
	plain = ""
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
)

func (s *screen) styled(style, text string) string {
	if !s.colors || style == plain {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

// line prints a line of the result.
func (s *screen) line(text string) {
	s.calm()
	fmt.Fprintln(s.out, text)
}

// fact prints a named fact of the scene.
func (s *screen) fact(name, format string, args ...any) {
	s.line("  " + s.styled(dim, fmt.Sprintf("%-10s", name)) + fmt.Sprintf(format, args...))
}

// note prints a line for a person, beside the result.
func (s *screen) note(text string) {
	s.calm()
	fmt.Fprintln(s.err, s.styled(dim, text))
}

// failure prints why the demo failed.
func (s *screen) failure(err error) {
	s.calm()
	fmt.Fprintln(s.err, s.styled(red, "demo failed: ")+err.Error())
}

// columns of the table, after the name of the step.
const columns = "%8s %9s %9s %9s %9s"

// stepWidth is the room for the name of a step.
const stepWidth = 44

// head prints the head of the table.
func (s *screen) head() {
	s.line("")
	head := fmt.Sprintf("    %-*s "+columns, stepWidth, "step", "verified", "p50", "p99", "asked", "direct")
	s.line(s.styled(bold, head))
}

// row prints one step.
func (s *screen) row(name string, m measured, requests, direct int, held bool) {
	mark := s.styled(green, "✓")
	if !held {
		mark = s.styled(red, "✗")
	}
	s.line(fmt.Sprintf("  %s %-*s "+columns, mark, stepWidth, name, fmt.Sprintf("%d/%d", m.verified, m.total),
		inMilliseconds(m.p50), inMilliseconds(m.p99), grouped(requests), grouped(direct)))
}

// busy shows what goes on until the next line is printed. count may be nil.
func (s *screen) busy(text string, count func() string) {
	s.calm()
	if !s.live {
		fmt.Fprintln(s.err, "... "+text)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	stop, stopped := make(chan struct{}), make(chan struct{})
	s.stop, s.stopped = stop, stopped
	go s.spin(text, count, stop, stopped)
}

// calm ends what busy shows.
func (s *screen) calm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop == nil {
		return
	}
	close(s.stop)
	<-s.stopped
	s.stop = nil
}

func (s *screen) spin(text string, count func() string, stop, stopped chan struct{}) {
	defer close(stopped)
	frames := []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}
	tick := time.NewTicker(80 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		progress := ""
		if count != nil {
			progress = " " + count()
		}
		fmt.Fprintf(s.err, "\r  %s %s%s\x1b[K", frames[i%len(frames)], text, progress)
		select {
		case <-tick.C:
		case <-stop:
			fmt.Fprint(s.err, "\r\x1b[K")
			return
		}
	}
}

func inMilliseconds(d time.Duration) string {
	milliseconds := float64(d) / float64(time.Millisecond)
	if milliseconds < 100 {
		return strconv.FormatFloat(milliseconds, 'f', 1, 64) + " ms"
	}
	return strconv.FormatFloat(milliseconds, 'f', 0, 64) + " ms"
}

// grouped writes n with a comma between each three digits.
func grouped(n int) string {
	digits := strconv.Itoa(n)
	var parts []string
	for len(digits) > 3 {
		parts = append([]string{digits[len(digits)-3:]}, parts...)
		digits = digits[:len(digits)-3]
	}
	return strings.Join(append([]string{digits}, parts...), ",")
}
