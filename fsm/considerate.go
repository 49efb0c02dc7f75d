package fsm

import (
	"io"
	"time"
)

const (
	// breakShare is how long a break is, in times of the work before it: a snapshot takes a fifth of a processor.
	breakShare = 4
	// maxBreak bounds one break. Work between two of them is a few milliseconds, more only when others want the processor.
	maxBreak = 250 * time.Millisecond
)

// considerate takes a break after each write, so that a snapshot does not stand in the way of commands: nobody waits for it,
// and what it costs in all comes in one piece otherwise, on all nodes at about the same time.
type considerate struct {
	to    io.Writer
	since time.Time       // the end of the last break
	hurry <-chan struct{} // closed when raft waits for the snapshot after all
}

// Write implements io.Writer.
func (c *considerate) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	if err != nil {
		return n, err
	}
	rest := time.NewTimer(min(maxBreak, breakShare*time.Since(c.since)))
	defer rest.Stop()
	select {
	case <-rest.C:
	case <-c.hurry:
	}
	c.since = time.Now()
	return n, nil
}
