package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
)

// health answers the gRPC health protocol from the readiness of the node, asked anew each time.
type health struct {
	healthv1.UnimplementedHealthServer
	ready    func() error
	interval time.Duration // between two looks at a watched state
}

func (h *health) status(service string) (healthv1.HealthCheckResponse_ServingStatus, bool) {
	if service != "" && service != registryv1.RegistryService_ServiceDesc.ServiceName {
		return healthv1.HealthCheckResponse_SERVICE_UNKNOWN, false
	}
	if h.ready() != nil {
		return healthv1.HealthCheckResponse_NOT_SERVING, true
	}
	return healthv1.HealthCheckResponse_SERVING, true
}

// Check implements the health service.
func (h *health) Check(_ context.Context, request *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	state, known := h.status(request.GetService())
	if !known { // the health protocol demands this very code
		return nil, status.Errorf(codes.NotFound, "unknown service %.100q", request.GetService())
	}
	return &healthv1.HealthCheckResponse{Status: state}, nil
}

// List implements the health service.
func (h *health) List(context.Context, *healthv1.HealthListRequest) (*healthv1.HealthListResponse, error) {
	state, _ := h.status("")
	answer := &healthv1.HealthCheckResponse{Status: state}
	return &healthv1.HealthListResponse{Statuses: map[string]*healthv1.HealthCheckResponse{
		"": answer, registryv1.RegistryService_ServiceDesc.ServiceName: answer,
	}}, nil
}

// Watch implements the health service: it sends the state, then each change of it.
func (h *health) Watch(request *healthv1.HealthCheckRequest, stream healthv1.Health_WatchServer) error {
	ticker := time.NewTicker(h.interval)
	defer ticker.Stop()
	last := healthv1.HealthCheckResponse_UNKNOWN
	for {
		if state, _ := h.status(request.GetService()); state != last {
			if err := stream.Send(&healthv1.HealthCheckResponse{Status: state}); err != nil {
				return err
			}
			last = state
		}
		select {
		case <-ticker.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
