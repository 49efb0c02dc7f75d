package client

import (
	"context"
	"errors"

	"github.com/ocistern/ocistern/internal/errdef"
)

// Error is what calls return: a stable Reason, what was wrong, and what to do next where that is known. Find it with
// errors.As, or test for a sentinel with errors.Is. ErrNotFound and the other notions that oras-go has are oras-go's
// own sentinels. A deadline matches context.DeadlineExceeded, a cancelled call context.Canceled.
type Error = errdef.Error

// Sentinels for errors.Is. About the request:
var (
	ErrReferenceInvalid = errdef.ErrReferenceInvalid
	ErrNameInvalid      = errdef.ErrNameInvalid
	ErrTagInvalid       = errdef.ErrTagInvalid
	ErrDigestInvalid    = errdef.ErrDigestInvalid
	ErrConfigInvalid    = errdef.ErrConfigInvalid
	ErrUnsupported      = errdef.ErrUnsupported
	ErrDenied           = errdef.ErrDenied
)

// About content. ErrNotFound is a definite answer, from the upstream registry or from the cluster; what could not be
// found out is one of the other errors (guarantee G5).
var (
	ErrNotFound         = errdef.ErrNotFound
	ErrDigestMismatch   = errdef.ErrDigestMismatch
	ErrSizeMismatch     = errdef.ErrSizeMismatch
	ErrContentCorrupt   = errdef.ErrContentCorrupt
	ErrManifestInvalid  = errdef.ErrManifestInvalid
	ErrManifestTooLarge = errdef.ErrManifestTooLarge
)

// About the upstream registry, as the node that asked it tells.
var (
	ErrUpstreamUnknown      = errdef.ErrUpstreamUnknown
	ErrUpstreamUnauthorized = errdef.ErrUpstreamUnauthorized
	ErrUpstreamDenied       = errdef.ErrUpstreamDenied
	ErrUpstreamThrottled    = errdef.ErrUpstreamThrottled
	ErrUpstreamUnavailable  = errdef.ErrUpstreamUnavailable
	ErrUpstreamTimeout      = errdef.ErrUpstreamTimeout
	ErrUpstreamInvalid      = errdef.ErrUpstreamInvalid
)

// About the cluster, after every endpoint was tried.
var (
	ErrUnavailable     = errdef.ErrUnavailable
	ErrNoQuorum        = errdef.ErrNoQuorum
	ErrNotReady        = errdef.ErrNotReady
	ErrStale           = errdef.ErrStale
	ErrDegraded        = errdef.ErrDegraded        // only from Status.Health and HealthAll
	ErrDiverged        = errdef.ErrDiverged        // only from Status.Health and HealthAll
	ErrClusterMismatch = errdef.ErrClusterMismatch // only from HealthAll
	ErrMemberAlive     = errdef.ErrMemberAlive     // only from Remove and Replace
	ErrQuorumAtRisk    = errdef.ErrQuorumAtRisk    // only from Leave, Remove and Replace
	ErrOverloaded      = errdef.ErrOverloaded
	ErrOutcomeUnknown  = errdef.ErrOutcomeUnknown
	ErrInternal        = errdef.ErrInternal
)

// misbehaved marks this client's own finding that a node sent what it should not have: another node may do better.
// The same reason reported by a node is final, since that is about the content itself.
type misbehaved struct{ error }

func (m misbehaved) Unwrap() error { return m.error }

// elsewhere reports whether another node may answer what this one did not. Everything here only reads, so asking twice
// does no harm. What an upstream said is final: more nodes asking would only multiply the load on it.
func elsewhere(err error) bool {
	if errors.As(err, new(misbehaved)) {
		return true
	}
	switch errdef.ReasonOf(err) {
	case errdef.Unavailable, errdef.NotReady, errdef.Stale, errdef.NoQuorum, errdef.NotLeader, errdef.OutcomeUnknown,
		errdef.Overloaded, errdef.ContentCorrupt, errdef.Internal:
		return true
	case errdef.Deadline, errdef.Canceled: // the node's or the attempt's: the caller's own are seen before
		return true
	default:
		return false
	}
}

// passing reports whether the whole cluster may be better off in a moment. No quorum is not: nodes say so only after
// they waited for one.
func passing(err error) bool {
	reason := errdef.ReasonOf(err)
	return reason == errdef.Unavailable || reason == errdef.NotReady
}

// ended returns the error of a call whose context ended, with what went wrong until then.
func ended(ctx context.Context, last error) error {
	reason := errdef.ReasonOf(ctx.Err())
	if last == nil {
		last = ctx.Err()
	}
	if reason == errdef.Canceled {
		return errdef.Wrap(reason, last, "call was cancelled")
	}
	return errdef.Wrap(reason, last, "no answer before the deadline").
		WithRemedy("allow more time, or see `ocistern status`")
}
