package errdef

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// domain marks the ErrorInfo details that this package writes and reads.
const domain = "ocistern"

// maxMessage bounds a message on the wire, in bytes: it travels in a header, and proxies bound those.
const maxMessage = 2 << 10

// ToGRPC converts err into a gRPC status error that carries its reason and remedy as an ErrorInfo detail
// (google.rpc.ErrorInfo). It returns nil for nil.
func ToGRPC(err error) error {
	if err == nil {
		return nil
	}
	reason, message, remedy := ReasonOf(err), err.Error(), ""
	var typed *Error
	if errors.As(err, &typed) {
		remedy = typed.Remedy
		message = strings.TrimSuffix(message, " ("+remedy+")") // printed again by the receiver
	}
	plain := status.New(rowOf(reason).code, sendable(message))
	detailed, detailErr := plain.WithDetails(&errdetails.ErrorInfo{
		Reason: string(reason), Domain: domain, Metadata: map[string]string{"remedy": sendable(remedy)},
	})
	if detailErr != nil {
		return plain.Err()
	}
	return detailed.Err()
}

// sendable makes text fit for the wire. gRPC drops the details, and with them the reason, of a status that is not UTF-8.
func sendable(text string) string {
	if len(text) > maxMessage {
		text = text[:maxMessage]
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// FromGRPC rebuilds the typed error from a gRPC error. A status without our detail (a proxy, the gRPC library itself)
// becomes Unavailable, Deadline, Canceled or Internal by its code. It returns nil for nil.
func FromGRPC(err error) error {
	if err == nil {
		return nil
	}
	var typed *Error
	if errors.As(err, &typed) {
		return err
	}
	st, ok := status.FromError(err)
	if !ok {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return Wrap(ReasonOf(err), err, "call ended")
		}
		return err
	}
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == domain {
			return &Error{Reason: Reason(info.GetReason()), Message: st.Message(), Remedy: info.GetMetadata()["remedy"]}
		}
	}
	switch st.Code() {
	case codes.Unavailable:
		return New(Unavailable, "%s", st.Message())
	case codes.DeadlineExceeded:
		return New(Deadline, "%s", st.Message())
	case codes.Canceled:
		return New(Canceled, "%s", st.Message())
	default:
		return New(Internal, "%s: %s", st.Code(), st.Message())
	}
}
