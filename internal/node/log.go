package node

import (
	"io"
	"log/slog"
)

// NewLogger returns the logger of a node: JSON, one record a line, each with the name of the node.
func NewLogger(w io.Writer, name string, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})).With("node", name)
}
