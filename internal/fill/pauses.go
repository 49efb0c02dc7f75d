package fill

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/budget"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// pauses is budget.Pauses over the catalog: what one node is told, all nodes know. Without a quorum, and below feature level
// 2, only this node knows.
type pauses struct {
	catalog  *catalog.Catalog
	proposer Proposer
	self     catalog.NodeID
	timeout  time.Duration
	logger   *slog.Logger

	life    context.Context
	stop    context.CancelFunc
	telling sync.WaitGroup
}

var _ budget.Pauses = (*pauses)(nil)

func newPauses(config FillerConfig) *pauses {
	life, stop := context.WithCancel(context.Background())
	return &pauses{
		catalog: config.Catalog, proposer: config.Proposer, self: config.Self, timeout: config.Timings.Publish,
		logger: config.Logger, life: life, stop: stop,
	}
}

// Until implements budget.Pauses.
func (p *pauses) Until(upstream string) time.Time {
	known, _ := p.catalog.Snapshot().Backoff(upstream)
	return known.Until
}

// Tell implements budget.Pauses.
func (p *pauses) Tell(upstream string, until time.Time) {
	p.logger.Warn("an upstream wants to be left alone", "upstream", upstream, "until", until)
	if p.catalog.Snapshot().FeatureLevel() < catalog.LevelRequests || p.life.Err() != nil {
		return
	}
	command := catalog.SetBackoff{Backoff: catalog.Backoff{
		Upstream: upstream, Until: until, Reason: string(errdef.UpstreamThrottled), Node: p.self,
	}}
	p.telling.Go(func() {
		ctx, cancel := context.WithTimeout(p.life, p.timeout)
		defer cancel()
		if _, err := p.proposer.Apply(ctx, command); err != nil {
			p.logger.Warn("the other nodes do not know yet that an upstream wants to be left alone", "upstream", upstream, "error", err)
		}
	})
}

func (p *pauses) close() {
	p.stop()
	p.telling.Wait()
}

// admit tells a caller at once when the upstream cannot be asked before its deadline.
func (f *Filler) admit(ctx context.Context, tenant reference.Tenant, repository reference.Repository) error {
	u, _, err := f.upstreamOf(tenant, repository)
	if err != nil {
		return err
	}
	return u.budget.Admit(ctx)
}
