package rpc

import (
	"context"
	"sync"

	statusv1 "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/gather"
	peerv1 "github.com/ocistern/ocistern/internal/proto/ocistern/peer/v1"
)

const (
	// applyBytes bounds the commands of one call, beside a larger one that goes by itself.
	applyBytes = 4 << 20
	// leastWeight bounds their number: to a quarter of what may wait on a leader.
	leastWeight = 4 << 10
	// applyLanes is how many calls to one leader may wait for their commit.
	applyLanes = 2
)

// applier gathers the commands that this node submits to one leader at the same time.
type applier = gather.Gatherer[fsm.Request, catalog.Result]

// applies has an applier for each address that was a leader's.
type applies struct {
	mutex sync.Mutex // guards to
	to    map[string]*applier
}

// Apply submits a request to the node at address, the leader, together with others that are submitted at the same time. It
// fails with OUTCOME_UNKNOWN when the command may have been submitted although no answer came.
func (c *PeerClient) Apply(ctx context.Context, address string, request fsm.Request) (catalog.LogIndex, error) {
	result, err := c.applier(address).Ask(ctx, request)
	if err != nil && ctx.Err() != nil && errdef.ReasonOf(err) == errdef.ReasonOf(ctx.Err()) { // its call may go on
		return 0, errdef.Wrap(errdef.OutcomeUnknown, err, "peer %s has not answered yet", address)
	}
	if err != nil {
		return 0, err
	}
	return result.Index, result.Err
}

func (c *PeerClient) applier(address string) *applier {
	c.applies.mutex.Lock()
	defer c.applies.mutex.Unlock()
	if known, ok := c.applies.to[address]; ok {
		return known
	}
	if len(c.applies.to) >= pooledConnections {
		clear(c.applies.to) // who waits there still gets an answer
	}
	made := gather.New(gather.Config[fsm.Request, catalog.Result]{
		Call: func(ctx context.Context, requests []fsm.Request) ([]catalog.Result, error) {
			return c.applyAll(ctx, address, requests)
		},
		Weight:   func(request fsm.Request) int { return max(leastWeight, request.PackedSize()) },
		Capacity: applyBytes, Lanes: applyLanes,
	})
	c.applies.to[address] = made
	return made
}

func (c *PeerClient) applyAll(ctx context.Context, address string, requests []fsm.Request) ([]catalog.Result, error) {
	service, err := c.service(address)
	if err != nil {
		return nil, err
	}
	message := applyMessage(requests)
	if size := proto.Size(message); size > MaxMessageBytes {
		return nil, errdef.New(errdef.Internal, "%d requests take %d bytes, more than a message may", len(requests), size)
	}
	var reached peer.Peer
	response, err := service.Apply(ctx, message, grpc.Peer(&reached))
	if err != nil {
		return nil, changeError(address, err, reached.Addr != nil)
	}
	if len(response.GetResults()) != len(requests) {
		return nil, errdef.New(errdef.OutcomeUnknown, "peer %s sent %d results for %d requests",
			address, len(response.GetResults()), len(requests))
	}
	results := make([]catalog.Result, len(requests))
	for i, message := range response.GetResults() {
		results[i] = parseResult(address, message)
	}
	return results, nil
}

// changeError tells what a failed call means that was to change something. It is certain that nothing was changed when no
// connection was found, when the node does not know the call, and when it says so itself, with a reason. INTERNAL is no
// such reason: whatever went wrong may have gone wrong afterwards. Nor is that gRPC had no room: it may be the answer that
// was too large.
func changeError(address string, err error, sent bool) error {
	told := peerError(address, err)
	answered := len(status.Convert(err).Details()) > 0 && errdef.ReasonOf(told) != errdef.Internal
	if sent && !answered && status.Code(err) != codes.Unimplemented {
		return errdef.Wrap(errdef.OutcomeUnknown, told, "peer %s took a call and gave no answer", address)
	}
	return told
}

// Apply implements the peer service.
func (s *peerService) Apply(ctx context.Context, message *peerv1.ApplyRequest) (*peerv1.ApplyResponse, error) {
	if len(message.GetSubmissions()) == 0 {
		return nil, errdef.New(errdef.CommandUnknown, "no submissions that this version understands").
			WithRemedy("run the same version on all nodes")
	}
	requests := make([]fsm.Request, len(message.GetSubmissions()))
	for i, submission := range message.GetSubmissions() {
		var err error
		if requests[i], err = parseSubmission(submission); err != nil {
			return nil, err // nothing is submitted yet
		}
	}
	response := &peerv1.ApplyResponse{Results: make([]*peerv1.ApplyResponse_Result, len(requests))}
	for i, result := range s.leader.ApplyAllLocal(ctx, requests) {
		var err error
		if response.Results[i], err = resultMessage(result); err != nil {
			return nil, err
		}
	}
	return response, nil
}

func applyMessage(requests []fsm.Request) *peerv1.ApplyRequest {
	message := &peerv1.ApplyRequest{Submissions: make([]*peerv1.ApplyRequest_Submission, len(requests))}
	for i, request := range requests {
		submission := &peerv1.ApplyRequest_Submission{Command: request.Command, Since: uint64(request.Since)}
		if request.ID != (catalog.RequestID{}) {
			submission.RequestId = request.ID[:]
		}
		message.Submissions[i] = submission
	}
	return message
}

func parseSubmission(message *peerv1.ApplyRequest_Submission) (fsm.Request, error) {
	request := fsm.Request{Command: message.GetCommand()}
	request.Since = catalog.LogIndex(message.GetSince())
	if length := len(message.GetRequestId()); length != 0 && length != len(request.ID) {
		return request, errdef.New(errdef.CommandUnknown, "request id of %d bytes", length)
	}
	copy(request.ID[:], message.GetRequestId())
	return request, nil
}

func resultMessage(result catalog.Result) (*peerv1.ApplyResponse_Result, error) {
	message := &peerv1.ApplyResponse_Result{Index: uint64(result.Index)}
	if result.Err == nil {
		return message, nil
	}
	var err error
	if message.Status, err = proto.Marshal(status.Convert(errdef.ToGRPC(result.Err)).Proto()); err != nil {
		return nil, errdef.Wrap(errdef.OutcomeUnknown, err, "a result cannot be told")
	}
	return message, nil
}

func parseResult(address string, message *peerv1.ApplyResponse_Result) catalog.Result {
	if len(message.GetStatus()) == 0 {
		return catalog.Result{Index: catalog.LogIndex(message.GetIndex())}
	}
	told := &statusv1.Status{}
	if err := proto.Unmarshal(message.GetStatus(), told); err != nil {
		return catalog.Result{Err: errdef.Wrap(errdef.OutcomeUnknown, err, "peer %s sent no valid result", address)}
	}
	return catalog.Result{Err: changeError(address, status.FromProto(told).Err(), true)}
}
