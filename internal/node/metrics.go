package node

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/ocistern/ocistern/internal/config"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/fill"
	"github.com/ocistern/ocistern/internal/registry"
)

// metrics counts what happens on this node, in a registry of its own. Names and labels are an interface to dashboards
// and alerts: they are only added to.
type metrics struct {
	registry *prometheus.Registry

	requests      *prometheus.CounterVec
	durations     *prometheus.HistogramVec
	http          *prometheus.CounterVec
	upstreams     *prometheus.CounterVec
	avoided       *prometheus.CounterVec
	walks         *walkMetrics
	upstreamTotal *tally
	mirrored      map[string]bool // names of the configured upstreams
}

// resultOK is the label of what did not fail.
const resultOK = "ok"

func newMetrics(version string, upstreams []config.Upstream) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ocistern_requests_total",
			Help: "Requests answered, by use case, where the answer came from (catalog, revalidating, " +
				"fill, stale, none) and result (ok or the reason).",
		}, []string{"api", "source", "result"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "ocistern_request_duration_seconds",
			Help:    "Time until the answer, for a blob until its first byte.",
			Buckets: []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"api", "source"}),
		http: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ocistern_http_requests_total",
			Help: "Requests to the OCI distribution API, by endpoint and result (ok or the reason).",
		}, []string{"endpoint", "result"}),
		upstreams: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ocistern_upstream_requests_total",
			Help: "HTTP requests that this node sent to upstream registries, retries included.",
		}, []string{"upstream", "operation", "result"}),
		avoided: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ocistern_upstream_requests_avoided_total",
			Help: "Answers of an upstream registry that callers of this node got without a request of their own.",
		}, []string{"upstream"}),
		walks: newWalkMetrics(), upstreamTotal: newTally(), mirrored: map[string]bool{},
	}
	for _, u := range upstreams {
		m.mirrored[u.Name] = true
		m.avoided.WithLabelValues(u.Name) // shown as 0 from the start
		m.walks.running.WithLabelValues(u.Name)
		m.walks.objects.WithLabelValues(u.Name)
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ocistern_build_info", Help: "Always 1; the labels tell what runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(m.requests, m.durations, m.http, m.upstreams, m.avoided, build,
		m.walks.running, m.walks.ended, m.walks.objects,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// observe implements registry.Observer. What the catalog answered for a mirrored repository, the upstream was not
// asked; of what had to be filled, package fill knows.
func (m *metrics) observe(seen registry.Observation) {
	host, _ := seen.Repository.UpstreamHost()
	if (seen.Source == "catalog" || seen.Source == "revalidating") && seen.API != "tags" && m.mirrored[host] {
		m.Avoided(host)
	}
	m.requests.WithLabelValues(seen.API, seen.Source, seen.Result).Inc()
	m.durations.WithLabelValues(seen.API, seen.Source).Observe(seen.Took.Seconds())
}

// observeHTTP implements distribution.Observer.
func (m *metrics) observeHTTP(endpoint string, reason errdef.Reason) {
	m.http.WithLabelValues(endpoint, resultOf(reason)).Inc()
}

// UpstreamRequest implements fill.Observer.
func (m *metrics) UpstreamRequest(upstream, operation string, err error) {
	m.upstreams.WithLabelValues(upstream, operation, resultOf(errdef.ReasonOf(err))).Inc()
	m.upstreamTotal.add(upstream)
}

// Avoided implements fill.Observer.
func (m *metrics) Avoided(upstream string) { m.avoided.WithLabelValues(upstream).Inc() }

func resultOf(reason errdef.Reason) string {
	if reason == "" {
		return resultOK
	}
	return string(reason)
}

// watchFills adds what is not published yet to the metrics.
func (m *metrics) watchFills(router *fill.Router) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ocistern_fills_running",
		Help: "What this node is fetching from upstreams and other nodes, or has fetched and is to publish.",
	}, func() float64 { return float64(router.Running()) }))
}
