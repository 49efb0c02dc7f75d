package testnode

import (
	"context"

	"github.com/ocistern/ocistern/internal/errdef"
)

// Failing answers every call with a reason.
func Failing(reason errdef.Reason) Intercept {
	return func(context.Context, Call) error {
		return errdef.New(reason, "planted %s", reason).WithRemedy("none, it is planted")
	}
}

// Hanging answers nothing until the caller gives up.
func Hanging(ctx context.Context, _ Call) error {
	<-ctx.Done()
	return ctx.Err()
}

// DyingAfter ends the stream of a blob after so many bytes, as a node that is killed would.
func DyingAfter(sent int64) Intercept {
	return func(_ context.Context, call Call) error {
		if call.Sent >= sent {
			return errdef.New(errdef.Unavailable, "planted death after %d bytes", call.Sent)
		}
		return nil
	}
}

// StallingAfter stops sending in the stream of a blob after so many bytes, and says nothing more.
func StallingAfter(sent int64) Intercept {
	return func(ctx context.Context, call Call) error {
		if call.Sent >= sent {
			return Hanging(ctx, call)
		}
		return nil
	}
}

// FlipLast damages the last byte of content, for Alter.
func FlipLast(content []byte) []byte {
	content[len(content)-1] ^= 1
	return content
}
