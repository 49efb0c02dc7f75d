package errdef

import (
	"context"
	"errors"
	"net/http"

	"google.golang.org/grpc/codes"
	oras "oras.land/oras-go/v2/errdef"
)

// The reasons. Input errors first, then content, upstream, cluster, the node's disk and caller.
const (
	ReferenceInvalid Reason = "REFERENCE_INVALID"
	NameInvalid      Reason = "NAME_INVALID"
	TagInvalid       Reason = "TAG_INVALID"
	DigestInvalid    Reason = "DIGEST_INVALID"
	ConfigInvalid    Reason = "CONFIG_INVALID"
	UsageInvalid     Reason = "USAGE_INVALID"
	RangeInvalid     Reason = "RANGE_INVALID"
	Unsupported      Reason = "UNSUPPORTED"

	NotFound         Reason = "NOT_FOUND"
	ManifestInvalid  Reason = "MANIFEST_INVALID"
	ManifestTooLarge Reason = "MANIFEST_TOO_LARGE"
	MediaTypeInvalid Reason = "MEDIA_TYPE_INVALID"
	DigestMismatch   Reason = "DIGEST_MISMATCH"
	SizeMismatch     Reason = "SIZE_MISMATCH"
	ContentCorrupt   Reason = "CONTENT_CORRUPT"
	TagConflict      Reason = "TAG_CONFLICT"

	UpstreamUnknown      Reason = "UPSTREAM_UNKNOWN"
	UpstreamUnauthorized Reason = "UPSTREAM_UNAUTHORIZED"
	UpstreamDenied       Reason = "UPSTREAM_DENIED"
	UpstreamThrottled    Reason = "UPSTREAM_THROTTLED"
	UpstreamUnavailable  Reason = "UPSTREAM_UNAVAILABLE"
	UpstreamTimeout      Reason = "UPSTREAM_TIMEOUT"
	UpstreamInvalid      Reason = "UPSTREAM_INVALID"

	NoQuorum        Reason = "NO_QUORUM"
	NotLeader       Reason = "NOT_LEADER"
	OutcomeUnknown  Reason = "OUTCOME_UNKNOWN"
	RequestExpired  Reason = "REQUEST_EXPIRED"
	Overloaded      Reason = "OVERLOADED"
	NotReady        Reason = "NOT_READY"
	Stale           Reason = "STALE"
	Degraded        Reason = "DEGRADED"
	Unavailable     Reason = "UNAVAILABLE"
	ClusterMismatch Reason = "CLUSTER_MISMATCH"
	CommandUnknown  Reason = "COMMAND_UNKNOWN"
	CommandInvalid  Reason = "COMMAND_INVALID"
	SnapshotInvalid Reason = "SNAPSHOT_INVALID"
	LogConflict     Reason = "LOG_CONFLICT"
	AddressInUse    Reason = "ADDRESS_IN_USE"
	MemberAlive     Reason = "MEMBER_ALIVE"
	QuorumAtRisk    Reason = "QUORUM_AT_RISK"
	Removed         Reason = "REMOVED"
	Diverged        Reason = "DIVERGED"
	VersionTooOld   Reason = "VERSION_TOO_OLD"

	DirectoryInUse Reason = "DIRECTORY_IN_USE"
	StorageFull    Reason = "STORAGE_FULL"
	StorageFailed  Reason = "STORAGE_FAILED"

	Denied   Reason = "DENIED"
	Deadline Reason = "DEADLINE"
	Canceled Reason = "CANCELED"
	Internal Reason = "INTERNAL"
)

// Sentinels for errors.Is. Where oras-go has the notion, its own sentinel is the one that matches.
var (
	ErrReferenceInvalid     = oras.ErrInvalidReference
	ErrDigestInvalid        = oras.ErrInvalidDigest
	ErrMediaTypeInvalid     = oras.ErrInvalidMediaType
	ErrNotFound             = oras.ErrNotFound
	ErrManifestTooLarge     = oras.ErrSizeExceedsLimit
	ErrUnsupported          = oras.ErrUnsupported
	ErrNameInvalid          = errors.New("invalid repository name")
	ErrTagInvalid           = errors.New("invalid tag")
	ErrConfigInvalid        = errors.New("invalid configuration")
	ErrUsageInvalid         = errors.New("wrong usage")
	ErrRangeInvalid         = errors.New("range not satisfiable")
	ErrManifestInvalid      = errors.New("invalid manifest")
	ErrDigestMismatch       = errors.New("digest mismatch")
	ErrSizeMismatch         = errors.New("size mismatch")
	ErrContentCorrupt       = errors.New("content on disk is corrupt")
	ErrTagConflict          = errors.New("tag has moved")
	ErrUpstreamUnknown      = errors.New("upstream is not configured")
	ErrUpstreamUnauthorized = errors.New("upstream refused the credentials")
	ErrUpstreamDenied       = errors.New("upstream denied access")
	ErrUpstreamThrottled    = errors.New("upstream is throttling")
	ErrUpstreamUnavailable  = errors.New("upstream is unavailable")
	ErrUpstreamTimeout      = errors.New("upstream timed out")
	ErrUpstreamInvalid      = errors.New("upstream gave an invalid answer")
	ErrNoQuorum             = errors.New("no quorum")
	ErrNotLeader            = errors.New("not the leader")
	ErrOutcomeUnknown       = errors.New("outcome unknown")
	ErrRequestExpired       = errors.New("request is too old")
	ErrOverloaded           = errors.New("overloaded")
	ErrStale                = errors.New("too old")
	ErrNotReady             = errors.New("node is not ready")
	ErrDegraded             = errors.New("cluster is degraded")
	ErrUnavailable          = errors.New("no node could be reached")
	ErrClusterMismatch      = errors.New("belongs to another cluster")
	ErrCommandUnknown       = errors.New("unknown command")
	ErrCommandInvalid       = errors.New("invalid command")
	ErrSnapshotInvalid      = errors.New("invalid snapshot")
	ErrLogConflict          = errors.New("log conflicts with snapshot")
	ErrAddressInUse         = errors.New("address in use")
	ErrMemberAlive          = errors.New("member is alive")
	ErrQuorumAtRisk         = errors.New("the living voters would be no quorum")
	ErrRemoved              = errors.New("node was removed from its cluster")
	ErrDiverged             = errors.New("log differs from that of the other voters")
	ErrVersionTooOld        = errors.New("version is too old")
	ErrDirectoryInUse       = errors.New("directory is in use by another process")
	ErrStorageFull          = errors.New("no space left on the node's disk")
	ErrStorageFailed        = errors.New("the node's disk failed")
	ErrDenied               = errors.New("denied")
	ErrInternal             = errors.New("internal error")
)

type row struct {
	reason   Reason
	sentinel error
	code     codes.Code
	ociCode  string
	status   int
	exit     int
}

// Exit codes of the command line (plan, section 10).
const (
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitDenied      = 4
	exitUnavailable = 5
	exitDegraded    = 6
	exitMismatch    = 7
	exitDeadline    = 124
	exitInterrupted = 130
)

func table() []row {
	return []row{
		{ReferenceInvalid, ErrReferenceInvalid, codes.InvalidArgument, "NAME_INVALID", http.StatusBadRequest, exitUsage},
		{NameInvalid, ErrNameInvalid, codes.InvalidArgument, "NAME_INVALID", http.StatusBadRequest, exitUsage},
		{TagInvalid, ErrTagInvalid, codes.InvalidArgument, "TAG_INVALID", http.StatusBadRequest, exitUsage},
		{DigestInvalid, ErrDigestInvalid, codes.InvalidArgument, "DIGEST_INVALID", http.StatusBadRequest, exitUsage},
		{ConfigInvalid, ErrConfigInvalid, codes.InvalidArgument, "UNSUPPORTED", http.StatusBadRequest, exitUsage},
		{UsageInvalid, ErrUsageInvalid, codes.InvalidArgument, "UNSUPPORTED", http.StatusBadRequest, exitUsage},
		{RangeInvalid, ErrRangeInvalid, codes.OutOfRange, "BLOB_UPLOAD_INVALID", http.StatusRequestedRangeNotSatisfiable, exitError},
		{Unsupported, ErrUnsupported, codes.Unimplemented, "UNSUPPORTED", http.StatusMethodNotAllowed, exitError},

		{NotFound, ErrNotFound, codes.NotFound, "MANIFEST_UNKNOWN", http.StatusNotFound, exitNotFound},
		{ManifestInvalid, ErrManifestInvalid, codes.InvalidArgument, "MANIFEST_INVALID", http.StatusBadRequest, exitError},
		{ManifestTooLarge, ErrManifestTooLarge, codes.ResourceExhausted, "SIZE_INVALID", http.StatusRequestEntityTooLarge, exitError},
		{MediaTypeInvalid, ErrMediaTypeInvalid, codes.InvalidArgument, "MANIFEST_INVALID", http.StatusUnsupportedMediaType, exitError},
		{DigestMismatch, ErrDigestMismatch, codes.DataLoss, "DIGEST_INVALID", http.StatusBadGateway, exitMismatch},
		{SizeMismatch, ErrSizeMismatch, codes.DataLoss, "SIZE_INVALID", http.StatusBadGateway, exitMismatch},
		{ContentCorrupt, ErrContentCorrupt, codes.DataLoss, "BLOB_UNKNOWN", http.StatusInternalServerError, exitMismatch},
		{TagConflict, ErrTagConflict, codes.Aborted, "DENIED", http.StatusPreconditionFailed, exitError},

		{UpstreamUnknown, ErrUpstreamUnknown, codes.FailedPrecondition, "NAME_UNKNOWN", http.StatusNotFound, exitError},
		{UpstreamUnauthorized, ErrUpstreamUnauthorized, codes.FailedPrecondition, "UNAUTHORIZED", http.StatusBadGateway, exitError},
		{UpstreamDenied, ErrUpstreamDenied, codes.FailedPrecondition, "DENIED", http.StatusBadGateway, exitError},
		{UpstreamThrottled, ErrUpstreamThrottled, codes.ResourceExhausted, "TOOMANYREQUESTS", http.StatusTooManyRequests, exitError},
		{UpstreamUnavailable, ErrUpstreamUnavailable, codes.Unavailable, "UNSUPPORTED", http.StatusBadGateway, exitError},
		{UpstreamTimeout, ErrUpstreamTimeout, codes.DeadlineExceeded, "UNSUPPORTED", http.StatusGatewayTimeout, exitError},
		{UpstreamInvalid, ErrUpstreamInvalid, codes.FailedPrecondition, "UNSUPPORTED", http.StatusBadGateway, exitError},

		{NoQuorum, ErrNoQuorum, codes.Unavailable, "UNSUPPORTED", http.StatusServiceUnavailable, exitUnavailable},
		{NotLeader, ErrNotLeader, codes.FailedPrecondition, "UNSUPPORTED", http.StatusServiceUnavailable, exitUnavailable},
		{OutcomeUnknown, ErrOutcomeUnknown, codes.Unknown, "UNSUPPORTED", http.StatusServiceUnavailable, exitUnavailable},
		{RequestExpired, ErrRequestExpired, codes.Aborted, "UNSUPPORTED", http.StatusServiceUnavailable, exitUnavailable},
		{Overloaded, ErrOverloaded, codes.ResourceExhausted, "TOOMANYREQUESTS", http.StatusTooManyRequests, exitUnavailable},
		{Stale, ErrStale, codes.Unavailable, "UNSUPPORTED", http.StatusServiceUnavailable, exitUnavailable},
		{NotReady, ErrNotReady, codes.Unavailable, "UNSUPPORTED", http.StatusServiceUnavailable, exitUnavailable},
		{Degraded, ErrDegraded, codes.FailedPrecondition, "UNSUPPORTED", http.StatusServiceUnavailable, exitDegraded},
		{Unavailable, ErrUnavailable, codes.Unavailable, "UNSUPPORTED", http.StatusServiceUnavailable, exitUnavailable},
		{ClusterMismatch, ErrClusterMismatch, codes.FailedPrecondition, "UNSUPPORTED", http.StatusServiceUnavailable, exitError},
		{CommandUnknown, ErrCommandUnknown, codes.Unimplemented, "UNSUPPORTED", http.StatusInternalServerError, exitError},
		{CommandInvalid, ErrCommandInvalid, codes.InvalidArgument, "UNSUPPORTED", http.StatusInternalServerError, exitError},
		{SnapshotInvalid, ErrSnapshotInvalid, codes.DataLoss, "UNSUPPORTED", http.StatusInternalServerError, exitError},
		{LogConflict, ErrLogConflict, codes.Internal, "UNSUPPORTED", http.StatusInternalServerError, exitError},
		{AddressInUse, ErrAddressInUse, codes.FailedPrecondition, "UNSUPPORTED", http.StatusInternalServerError, exitError},
		{MemberAlive, ErrMemberAlive, codes.FailedPrecondition, "UNSUPPORTED", http.StatusConflict, exitError},
		{QuorumAtRisk, ErrQuorumAtRisk, codes.FailedPrecondition, "UNSUPPORTED", http.StatusConflict, exitError},
		{Removed, ErrRemoved, codes.FailedPrecondition, "UNSUPPORTED", http.StatusServiceUnavailable, exitError},
		{Diverged, ErrDiverged, codes.DataLoss, "UNSUPPORTED", http.StatusServiceUnavailable, exitMismatch},
		{VersionTooOld, ErrVersionTooOld, codes.FailedPrecondition, "UNSUPPORTED", http.StatusInternalServerError, exitError},

		{DirectoryInUse, ErrDirectoryInUse, codes.FailedPrecondition, "UNSUPPORTED", http.StatusInternalServerError, exitError},
		{StorageFull, ErrStorageFull, codes.ResourceExhausted, "UNSUPPORTED", http.StatusInsufficientStorage, exitError},
		{StorageFailed, ErrStorageFailed, codes.Internal, "UNSUPPORTED", http.StatusInternalServerError, exitError},

		{Denied, ErrDenied, codes.PermissionDenied, "DENIED", http.StatusForbidden, exitDenied},
		{Deadline, context.DeadlineExceeded, codes.DeadlineExceeded, "UNSUPPORTED", http.StatusGatewayTimeout, exitDeadline},
		{Canceled, context.Canceled, codes.Canceled, "UNSUPPORTED", 499, exitInterrupted},
		{Internal, ErrInternal, codes.Internal, "UNSUPPORTED", http.StatusInternalServerError, exitError},
	}
}

// Reasons returns every reason, in the order of the table.
func Reasons() []Reason {
	rows := table()
	reasons := make([]Reason, 0, len(rows))
	for _, r := range rows {
		reasons = append(reasons, r.reason)
	}
	return reasons
}

// rowOf returns the row of a reason. A reason this build does not know (sent by a newer node) is internal.
func rowOf(reason Reason) row {
	rows := table()
	for _, r := range rows {
		if r.reason == reason {
			return r
		}
	}
	return rows[len(rows)-1]
}
