package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// hcLogger lets Raft, which logs through hclog, log through slog.
type hcLogger struct {
	slog    *slog.Logger
	name    string
	implied []any
}

func newHCLogger(logger *slog.Logger, name string) hclog.Logger {
	return &hcLogger{slog: logger.With("component", name), name: name}
}

func levelOf(level hclog.Level) slog.Level {
	switch level {
	case hclog.Trace:
		return slog.LevelDebug - 4
	case hclog.Debug:
		return slog.LevelDebug
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

// Log implements hclog.Logger, as do the methods below.
func (l *hcLogger) Log(level hclog.Level, msg string, args ...any) {
	if level == hclog.Off || !l.enabled(level) {
		return
	}
	l.slog.Log(context.Background(), levelOf(level), msg, plain(args)...)
}

// plain replaces hclog's lazy values by what they print, and gives a value without key the key hclog gives it.
func plain(args []any) []any {
	if len(args)%2 == 1 {
		args = append(args[:len(args)-1:len(args)-1], hclog.MissingKey, args[len(args)-1])
	}
	values := make([]any, len(args))
	for i, arg := range args {
		switch value := arg.(type) {
		case hclog.Format:
			format, _ := value[0].(string)
			values[i] = fmt.Sprintf(format, value[1:]...)
		case fmt.Stringer:
			values[i] = value.String()
		case []byte:
			values[i] = string(value)
		default:
			values[i] = arg
		}
	}
	return values
}

func (l *hcLogger) enabled(level hclog.Level) bool {
	return l.slog.Enabled(context.Background(), levelOf(level))
}

func (l *hcLogger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *hcLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *hcLogger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *hcLogger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *hcLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }
func (l *hcLogger) IsTrace() bool                 { return l.enabled(hclog.Trace) }
func (l *hcLogger) IsDebug() bool                 { return l.enabled(hclog.Debug) }
func (l *hcLogger) IsInfo() bool                  { return l.enabled(hclog.Info) }
func (l *hcLogger) IsWarn() bool                  { return l.enabled(hclog.Warn) }
func (l *hcLogger) IsError() bool                 { return l.enabled(hclog.Error) }
func (l *hcLogger) ImpliedArgs() []any            { return l.implied }
func (l *hcLogger) Name() string                  { return l.name }

func (l *hcLogger) With(args ...any) hclog.Logger {
	implied := append(append([]any(nil), l.implied...), args...)
	return &hcLogger{slog: l.slog.With(plain(args)...), name: l.name, implied: implied}
}

func (l *hcLogger) Named(name string) hclog.Logger {
	return &hcLogger{slog: l.slog.With("component", name), name: l.name + "." + name, implied: l.implied}
}

func (l *hcLogger) ResetNamed(name string) hclog.Logger {
	return &hcLogger{slog: l.slog.With("component", name), name: name, implied: l.implied}
}

// SetLevel does nothing: the injected logger decides.
func (l *hcLogger) SetLevel(hclog.Level) {}

func (l *hcLogger) GetLevel() hclog.Level {
	for _, level := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn, hclog.Error} {
		if l.enabled(level) {
			return level
		}
	}
	return hclog.Off
}

func (l *hcLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(nil), "", 0)
}

func (l *hcLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return lineLogger{l.slog} }

// newLineLogger lets memberlist, which logs lines such as "[WARN] memberlist: text", log through slog.
func newLineLogger(logger *slog.Logger, name string) *log.Logger {
	return log.New(lineLogger{logger.With("component", name)}, "", 0)
}

type lineLogger struct {
	slog *slog.Logger
}

// Write logs one line at the level that its prefix names.
func (l lineLogger) Write(line []byte) (int, error) {
	text, level := bytes.TrimSpace(line), slog.LevelInfo
	if prefix, rest, ok := bytes.Cut(text, []byte("] ")); ok && bytes.HasPrefix(prefix, []byte("[")) {
		text = rest
		switch string(prefix[1:]) {
		case "DEBUG":
			level = slog.LevelDebug
		case "WARN":
			level = slog.LevelWarn
		case "ERR", "ERROR":
			level = slog.LevelError
		}
	}
	l.slog.Log(context.Background(), level, string(bytes.TrimPrefix(text, []byte("memberlist: "))))
	return len(line), nil
}
