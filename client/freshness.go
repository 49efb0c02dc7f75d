package client

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ocistern/ocistern/internal/errdef"
	freshnessv1 "github.com/ocistern/ocistern/internal/proto/ocistern/freshness/v1"
)

// Invalidated is what came of Invalidate.
type Invalidated struct {
	// CatalogIndex is the index from which on nothing is answered that was known before.
	CatalogIndex uint64 `json:"catalogIndex"`
	// Lagging names the nodes that have not confirmed it yet; empty when it holds everywhere.
	Lagging []string `json:"lagging"`
}

// Everywhere returns ErrDegraded unless all nodes have confirmed.
func (i Invalidated) Everywhere() error {
	if len(i.Lagging) == 0 {
		return nil
	}
	return errdef.New(errdef.Degraded, "not confirmed by %v, which may still answer with what they knew", i.Lagging).
		WithRemedy("look after these nodes (ocistern status --all), and invalidate again")
}

// Invalidate makes names be asked about at their upstreams before they are answered again, on every node. A scope is
// REPOSITORY, REPOSITORY:TAG, REPOSITORY@DIGEST or REPOSITORY/* for all repositories below a name. It may be repeated. It
// fails with ErrUpstreamUnknown for a repository that mirrors no configured upstream.
func (c *Client) Invalidate(ctx context.Context, scopes ...string) (Invalidated, error) {
	done := Invalidated{Lagging: []string{}} // never null in JSON
	request := &freshnessv1.InvalidateRequest{Tenant: string(c.options.tenant), Scopes: scopes}
	err := c.freshness(ctx, func(ctx context.Context, api freshnessv1.FreshnessServiceClient) error {
		answer, err := api.Invalidate(ctx, request)
		done.CatalogIndex = answer.GetIndex()
		done.Lagging = append(done.Lagging[:0], answer.GetLagging()...)
		return err
	})
	if err == nil {
		c.session.raise(done.CatalogIndex)
	}
	return done, err
}

// TagMove is one event in the history of a tag.
type TagMove struct {
	// Time is by the clock of the node that learned it.
	Time time.Time `json:"time"`
	// From and To are empty where the tag was not known, or absent at its upstream.
	From digest.Digest `json:"from,omitempty"`
	To   digest.Digest `json:"to,omitempty"`
	// Back tells that the tag has pointed at To before.
	Back bool `json:"back"`
	// Node is the id of the node that learned it, empty where that was not recorded.
	Node string `json:"node,omitempty"`
	// CatalogIndex is that of the entry in the log.
	CatalogIndex uint64 `json:"catalogIndex"`
}

// TagHistory is how a tag came to point where it does.
type TagHistory struct {
	Moves  []TagMove `json:"moves"` // oldest first
	Source Source    `json:"source"`
	// Truncated tells that older moves were dropped.
	Truncated bool `json:"truncated"`
}

// History returns the history of a tag. It fails with ErrNotFound for one that the cluster has never seen.
func (r *Repository) History(ctx context.Context, tag string) (TagHistory, error) {
	var history TagHistory
	err := r.client.freshness(ctx, func(ctx context.Context, api freshnessv1.FreshnessServiceClient) error {
		answer, err := api.GetHistory(ctx, &freshnessv1.GetHistoryRequest{Target: r.target(tag)})
		history = TagHistory{Moves: []TagMove{}, Source: sourceOf(answer.GetSource()), Truncated: answer.GetTruncated()}
		for _, move := range answer.GetMoves() {
			history.Moves = append(history.Moves, TagMove{
				Time: timeOf(move.GetTime()), From: digest.Digest(move.GetFrom()), To: digest.Digest(move.GetTo()),
				Back: move.GetBack(), Node: move.GetNode(), CatalogIndex: move.GetIndex(),
			})
		}
		return err
	})
	return history, err
}

// PolicyField is one value of a policy.
type PolicyField struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// Origin is "default", or the rule of the configuration that set it.
	Origin string `json:"origin"`
}

// PolicyExplanation tells by which rules a name is answered.
type PolicyExplanation struct {
	Fields []PolicyField `json:"fields"`
	// Known tells whether the cluster knows anything of the name; the times are zero where it does not.
	Known      bool      `json:"known"`
	Observed   time.Time `json:"observed,omitzero"`
	FreshUntil time.Time `json:"freshUntil,omitzero"`
	StaleUntil time.Time `json:"staleUntil,omitzero"`
	// Decision is what a caller would be told now, in words.
	Decision string `json:"decision"`
	// BackoffUntil is until when the upstream is not asked, zero for no backoff, and BackoffReason why.
	BackoffUntil  time.Time `json:"backoffUntil,omitzero"`
	BackoffReason string    `json:"backoffReason,omitempty"`
}

// ExplainPolicy tells by which rules a tag or digest is answered, and what a caller would be told now. No upstream is asked.
// It fails with ErrUpstreamUnknown for a repository that mirrors no configured upstream.
func (r *Repository) ExplainPolicy(ctx context.Context, tagOrDigest string) (PolicyExplanation, error) {
	var explained PolicyExplanation
	err := r.client.freshness(ctx, func(ctx context.Context, api freshnessv1.FreshnessServiceClient) error {
		answer, err := api.ExplainPolicy(ctx, &freshnessv1.ExplainPolicyRequest{Target: r.target(tagOrDigest)})
		explained = PolicyExplanation{
			Fields: []PolicyField{}, Known: answer.GetKnown(), Observed: timeOf(answer.GetObserved()),
			FreshUntil: timeOf(answer.GetFreshUntil()), StaleUntil: timeOf(answer.GetStaleUntil()), Decision: answer.GetDecision(),
			BackoffUntil: timeOf(answer.GetBackoffUntil()), BackoffReason: answer.GetBackoffReason(),
		}
		for _, field := range answer.GetFields() {
			explained.Fields = append(explained.Fields, PolicyField{field.GetName(), field.GetValue(), field.GetOrigin()})
		}
		return err
	})
	return explained, err
}

// freshness calls one endpoint after the other until one answers.
func (c *Client) freshness(
	ctx context.Context, do func(ctx context.Context, api freshnessv1.FreshnessServiceClient) error,
) error {
	return c.callNode(ctx, c.sticky(), func(ctx context.Context, node *endpoint) error {
		return do(ctx, freshnessv1.NewFreshnessServiceClient(node.conn))
	})
}

func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
