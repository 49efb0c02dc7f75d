package rpc

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	freshnessv1 "github.com/ocistern/ocistern/internal/proto/ocistern/freshness/v1"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
	"github.com/ocistern/ocistern/internal/registry"
)

// Steward explains and corrects what callers are told. Package registry implements it.
type Steward interface {
	Invalidate(ctx context.Context, principal registry.Principal, scopes []registry.Scope) (registry.Invalidated, error)
	History(ctx context.Context, principal registry.Principal, target registry.Target) (registry.History, error)
	Explain(ctx context.Context, principal registry.Principal, target registry.Target) (registry.Explanation, error)
}

type freshnessService struct {
	freshnessv1.UnimplementedFreshnessServiceServer
	steward Steward
}

// Invalidate implements the freshness service.
func (s *freshnessService) Invalidate(
	ctx context.Context, request *freshnessv1.InvalidateRequest,
) (*freshnessv1.InvalidateResponse, error) {
	principal, _, err := parseLevel(&registryv1.Target{Tenant: request.GetTenant()})
	if err != nil {
		return nil, err
	}
	if len(request.GetScopes()) > registry.MaxScopes {
		return nil, errdef.New(errdef.UsageInvalid, "%d names to invalidate", len(request.GetScopes())).
			WithRemedy("at most %d at a time", registry.MaxScopes)
	}
	var scopes []registry.Scope
	for _, text := range request.GetScopes() {
		scope, err := registry.ParseScope(text)
		if err != nil {
			return nil, err
		}
		scopes = append(scopes, scope)
	}
	done, err := s.steward.Invalidate(ctx, principal, scopes)
	return &freshnessv1.InvalidateResponse{Index: uint64(done.Index), Lagging: done.Lagging}, err
}

// GetHistory implements the freshness service.
func (s *freshnessService) GetHistory(
	ctx context.Context, request *freshnessv1.GetHistoryRequest,
) (*freshnessv1.GetHistoryResponse, error) {
	principal, target, err := parseTarget(request.GetTarget())
	if err != nil {
		return nil, err
	}
	history, err := s.steward.History(ctx, principal, target)
	if err != nil {
		return nil, err
	}
	response := &freshnessv1.GetHistoryResponse{
		Source: sourceMessage(history.Source), Truncated: history.Truncated, CatalogIndex: uint64(history.Index),
	}
	for _, event := range history.Events {
		response.Moves = append(response.Moves, &freshnessv1.TagMove{
			Time: timeMessage(event.Time), From: event.From.String(), To: event.To.String(), Back: event.Back,
			Node: string(event.Node), Index: uint64(event.Index),
		})
	}
	return response, nil
}

// ExplainPolicy implements the freshness service.
func (s *freshnessService) ExplainPolicy(
	ctx context.Context, request *freshnessv1.ExplainPolicyRequest,
) (*freshnessv1.ExplainPolicyResponse, error) {
	principal, target, err := parseTarget(request.GetTarget())
	if err != nil {
		return nil, err
	}
	explained, err := s.steward.Explain(ctx, principal, target)
	if err != nil {
		return nil, err
	}
	response := &freshnessv1.ExplainPolicyResponse{
		Known: explained.Known, Observed: timeMessage(explained.Freshness.Observed),
		FreshUntil: timeMessage(explained.Freshness.FreshUntil), StaleUntil: timeMessage(explained.Freshness.StaleUntil),
		Decision: explained.Decision, BackoffUntil: timeMessage(explained.Backoff.Until),
		BackoffReason: explained.Backoff.Reason, CatalogIndex: uint64(explained.Index),
	}
	for _, field := range explained.Fields {
		response.Fields = append(response.Fields, &freshnessv1.PolicyField{Name: field.Name, Value: field.Value, Origin: field.Origin})
	}
	return response, nil
}

func sourceMessage(source catalog.Source) registryv1.Source {
	switch source {
	case catalog.SourceUpstream:
		return registryv1.Source_SOURCE_UPSTREAM
	case catalog.SourcePushed:
		return registryv1.Source_SOURCE_PUSHED
	}
	return registryv1.Source_SOURCE_UNSPECIFIED
}

// timeMessage leaves the zero time out.
func timeMessage(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
