// Package errdef is the one table of what can go wrong in Ocistern: each row joins a stable reason to its Go
// sentinel (compatible with oras.land/oras-go/v2/errdef by errors.Is), its gRPC code, its OCI error code with HTTP
// status, and the exit code of the command line.
//
// It is not a logging package and holds no state. Every package of the project may import it; the client rebuilds
// a Go error from the reason on the wire, never from its text.
package errdef

import (
	"context"
	"errors"
	"fmt"
)

// Reason names one cause of failure. Reasons are part of the wire format: they are never renamed or reused.
type Reason string

// Error says what was wrong and, where a remedy is known, what would be right. It is immutable once shared.
type Error struct {
	// Reason selects the row of the table.
	Reason Reason
	// Message says what was wrong, without secrets.
	Message string
	// Remedy says what to do next; empty where nothing useful is known.
	Remedy string

	cause error
}

// New returns an Error with a formatted message.
func New(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Wrap returns an Error that keeps cause in its chain. The message is followed by the cause when printed.
func Wrap(reason Reason, cause error, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...), cause: cause}
}

// WithRemedy returns a copy of e that says what to do next.
func (e *Error) WithRemedy(format string, args ...any) *Error {
	copied := *e
	copied.Remedy = fmt.Sprintf(format, args...)
	return &copied
}

// Error prints message, cause and remedy on one line.
func (e *Error) Error() string {
	text := e.Message
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	if e.Remedy != "" {
		text += " (" + e.Remedy + ")"
	}
	return text
}

// Unwrap returns the cause, or nil.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is the sentinel of e's reason.
func (e *Error) Is(target error) bool { return target == rowOf(e.Reason).sentinel }

// ReasonOf returns the reason of err: that of the outermost Error in its chain, else that of a known sentinel or
// context error in its chain, else Internal. It returns "" for nil.
func ReasonOf(err error) Reason {
	if err == nil {
		return ""
	}
	var typed *Error
	if errors.As(err, &typed) {
		return typed.Reason
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return Deadline
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	for _, r := range table() {
		if errors.Is(err, r.sentinel) {
			return r.reason
		}
	}
	return Internal
}

// ExitCode returns the command line's exit code for err: 0 for nil, 1 for what has no code of its own.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	return rowOf(ReasonOf(err)).exit
}

// HTTP returns the OCI error code (distribution spec, "Error Codes") and HTTP status for err.
func HTTP(err error) (code string, status int) {
	r := rowOf(ReasonOf(err))
	return r.ociCode, r.status
}
