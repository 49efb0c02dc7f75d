package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/prefetch"
)

// walkMetrics count what is fetched ahead.
type walkMetrics struct {
	running *prometheus.GaugeVec
	ended   *prometheus.CounterVec
	objects *prometheus.CounterVec
}

func newWalkMetrics() *walkMetrics {
	return &walkMetrics{
		running: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ocistern_prefetch_running", Help: "Walks under way that fetch ahead what a verifier will ask for.",
		}, []string{"upstream"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ocistern_prefetch_walks_total",
			Help: "Walks that have ended, by result (ok or the reason; OVERLOADED for those that never began, since too many were under way).",
		}, []string{"upstream", "result"}),
		objects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ocistern_prefetch_objects_total", Help: "Objects fetched ahead that this node did not have.",
		}, []string{"upstream"}),
	}
}

// WalkBegan implements prefetch.Observer.
func (m *metrics) WalkBegan(upstream string) { m.walks.running.WithLabelValues(upstream).Inc() }

// WalkEnded implements prefetch.Observer.
func (m *metrics) WalkEnded(walk prefetch.Walk) {
	m.walks.running.WithLabelValues(walk.Upstream).Dec()
	m.walks.ended.WithLabelValues(walk.Upstream, resultOf(errdef.ReasonOf(walk.Err))).Inc()
	m.walks.objects.WithLabelValues(walk.Upstream).Add(float64(walk.Objects))
}

// WalkRefused implements prefetch.Observer.
func (m *metrics) WalkRefused(upstream string) {
	m.walks.ended.WithLabelValues(upstream, string(errdef.Overloaded)).Inc()
}
