package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
)

const readyInterval = 50 * time.Millisecond

// waitReady waits until every node says that it is ready. It fails early when one dies.
func waitReady(ctx context.Context, f *fleet) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	waiting := f.nodes
	for ticker := time.NewTicker(readyInterval); ; {
		for len(waiting) > 0 && isReady(ctx, waiting[0]) {
			waiting = waiting[1:]
		}
		if len(waiting) == 0 {
			ticker.Stop()
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errdef.Wrap(errdef.NotReady, ctx.Err(), "node %s is not ready", waiting[0].name).
				WithRemedy("its log is %s", waiting[0].logPath())
		case dead := <-f.deaths:
			return errdef.New(errdef.Unavailable, "%s: %s", dead, lastWords(dead.node.logPath())).
				WithRemedy("its log is %s", dead.node.logPath())
		}
	}
}

func isReady(ctx context.Context, p process) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.listen.Admin+"/readyz", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body) // so that the connection can be used again
	return response.StatusCode == http.StatusOK
}

// lastWords returns the message and error of the last line of a node's log, for a person.
func lastWords(logPath string) string {
	content, err := os.ReadFile(logPath)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	last := lines[len(lines)-1]
	var record struct{ Msg, Error string }
	if json.Unmarshal(last, &record) != nil {
		return string(last)
	}
	return strings.TrimSuffix(record.Msg+": "+record.Error, ": ")
}
