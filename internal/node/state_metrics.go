package node

import (
	"github.com/prometheus/client_golang/prometheus"
)

// state is a collector of what the node is at the moment it is asked, in O(1).
type state struct {
	node         *Node
	descriptions map[string]*prometheus.Desc
}

// watch adds the state of an opened node to the metrics.
func (m *metrics) watch(n *Node) {
	s := &state{node: n, descriptions: map[string]*prometheus.Desc{}}
	for _, metric := range s.read() {
		var labels []string
		if metric.kind != "" {
			labels = []string{"kind"}
		}
		s.descriptions[metric.name] = prometheus.NewDesc(metric.name, metric.help, labels, nil)
	}
	m.registry.MustRegister(s)
}

// reading is the value of one gauge; kind is its label, empty for none.
type reading struct {
	name, help, kind string
	value            float64
}

func (s *state) read() []reading {
	n := s.node
	c, snapshot, usage := n.cluster.Load(), n.catalog.Snapshot(), n.store.Usage()
	raft, stats := c.Status(), snapshot.Stats()
	const (
		recordsName = "ocistern_catalog_records"
		recordsHelp = "Records in the catalog, by kind."
	)
	compared, _ := c.Compared()
	free, full, err := n.store.Space()
	if err != nil {
		n.options.Logger.Warn("the free space is not known", "error", err)
	}
	lag := float64(0)
	if raft.CommitIndex > raft.AppliedIndex {
		lag = float64(raft.CommitIndex - raft.AppliedIndex)
	}
	return []reading{
		{"ocistern_ready", "1 while this node may be asked.", "", truth(n.ready() == nil)},
		{"ocistern_raft_leader", "1 while this node is the leader.", "", truth(raft.Leader != "" && raft.Leader == c.Self())},
		{"ocistern_raft_leader_known", "1 while this node knows a leader.", "", truth(raft.Leader != "")},
		{"ocistern_raft_term", "Raft term of this node.", "", float64(raft.Term)},
		{"ocistern_raft_applied_lag", "Log entries known as committed that the catalog has not applied yet.", "", lag},
		{"ocistern_feature_level", "Feature level of the cluster, as this node has applied it.", "", float64(raft.FeatureLevel)},
		{"ocistern_members_alive", "Members that gossip sees alive, this node included.", "", float64(len(c.Living()))},
		{"ocistern_command_hash_differs", "1 while voters are seen to have applied different commands.", "",
			truth(compared.Equal < compared.Told)},
		{"ocistern_catalog_index", "Index of the last log entry applied to the catalog.", "", float64(snapshot.Index())},
		{recordsName, recordsHelp, "tag", float64(stats.Tags)},
		{recordsName, recordsHelp, "manifest", float64(stats.Manifests)},
		{recordsName, recordsHelp, "referrers", float64(stats.Referrers)},
		{recordsName, recordsHelp, "absence", float64(stats.Absences)},
		{recordsName, recordsHelp, "link", float64(stats.Links)},
		{recordsName, recordsHelp, "blob", float64(stats.Blobs)},
		{"ocistern_content_blobs", "Blobs on the disk of this node.", "", float64(usage.Blobs)},
		{"ocistern_content_bytes", "Bytes of blobs on the disk of this node.", "", float64(usage.Bytes)},
		{"ocistern_disk_free_bytes", "Free bytes of the disk of this node.", "", float64(free)},
		{"ocistern_disk_full", "1 while no content is stored for want of space.", "", truth(full)},
		{"ocistern_raft_reserve_given_up", "1 while the disk is full and the raft log has the last of it.", "",
			truth(c.ReserveGivenUp())},
		{"ocistern_content_memory_bytes", "Bytes of small content in the memory of this node.", "",
			float64(usage.MemoryBytes)},
	}
}

func truth(condition bool) float64 {
	if condition {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (s *state) Describe(descriptions chan<- *prometheus.Desc) {
	for _, description := range s.descriptions {
		descriptions <- description
	}
}

// Collect implements prometheus.Collector.
func (s *state) Collect(metrics chan<- prometheus.Metric) {
	for _, r := range s.read() {
		var labels []string
		if r.kind != "" {
			labels = []string{r.kind}
		}
		metrics <- prometheus.MustNewConstMetric(s.descriptions[r.name], prometheus.GaugeValue, r.value, labels...)
	}
}
