package client

import (
	"strings"

	"github.com/ocistern/ocistern/internal/errdef"
)

// Health judges the cluster as this status shows it: nil when there is a leader and every voter is alive, ErrNoQuorum
// when there is no leader, ErrDegraded when a voter is missing, the disk of the node that answered is full or it sees what an
// operator has to settle (Notices), and ErrDiverged when voters were seen to hold different commands.
func (s *Status) Health() error {
	if c := s.Catalog.Comparison; c != nil && c.Equal < c.Told {
		return errdef.New(errdef.Diverged, "the voters hold different commands: at index %d %d of %d have those of %s",
			c.Index, c.Equal, c.Voters, s.Node.Name).
			WithRemedy("the node that differs from a majority ends by itself; if none does, bring the other voters back")
	}
	if s.Leader == "" && len(s.Notices) > 0 {
		return errdef.New(errdef.NoQuorum, "the cluster has no leader: %s", s.Notices[0])
	}
	if s.Leader == "" {
		return errdef.New(errdef.NoQuorum, "the cluster has no leader").
			WithRemedy("start more than half of the voters: cached content is still answered, new content is not")
	}
	if len(s.Notices) > 0 {
		return errdef.New(errdef.Degraded, "%s", s.Notices[0])
	}
	var missing []string
	for _, member := range s.Members {
		if member.Role == "voter" && member.State != "alive" {
			missing = append(missing, member.Name+" is "+member.State)
		}
	}
	if len(missing) > 0 {
		return errdef.New(errdef.Degraded, "the cluster is degraded: %s", strings.Join(missing, ", ")).
			WithRemedy("start the node again on its data directory; it catches up by itself")
	}
	if s.Content.Full || s.Content.ReserveGivenUp {
		return errdef.New(errdef.Degraded, "the disk of %s is full: %d bytes are free", s.Node.Name, s.Content.FreeBytes).
			WithRemedy("free space or enlarge the volume: new content is answered, but not kept")
	}
	return nil
}

// HealthAll judges the answers of StatusAll together: an error for an endpoint without an answer, for nodes of
// different clusters, or for catalogs that differ at the same index (ErrDigestMismatch, the worst that can be), and
// otherwise the worst Health of the nodes.
func HealthAll(nodes []NodeStatus) error {
	var worst error
	var answered []NodeStatus
	for _, node := range nodes {
		if node.Err != nil {
			worst = graver(worst, errdef.Wrap(errdef.Degraded, node.Err, "no status from %s", node.Endpoint).
				WithRemedy("start the node again on its data directory; it catches up by itself"))
			continue
		}
		worst = graver(worst, node.Status.Health())
		for _, other := range answered {
			worst = graver(worst, compare(other, node))
		}
		answered = append(answered, node)
	}
	return worst
}

// compare finds what must not differ between two nodes.
func compare(a, b NodeStatus) error {
	if a.Status.ClusterID != b.Status.ClusterID {
		return errdef.New(errdef.ClusterMismatch, "%s and %s belong to different clusters", a.Endpoint, b.Endpoint).
			WithRemedy("name endpoints of one cluster")
	}
	ours, theirs := a.Status.Catalog, b.Status.Catalog
	if ours.Index != theirs.Index || (ours.CommandHash == theirs.CommandHash && ours.Digest == theirs.Digest) {
		return nil
	}
	return errdef.New(errdef.DigestMismatch,
		"%s and %s hold different catalogs at index %d", a.Endpoint, b.Endpoint, ours.Index).
		WithRemedy("stop the node that differs from the majority, remove its data directory, start it again")
}

// graver keeps the error that matters more.
func graver(a, b error) error {
	if gravity(b) > gravity(a) {
		return b
	}
	return a
}

func gravity(err error) int {
	if err == nil {
		return 0
	}
	switch errdef.ReasonOf(err) {
	case errdef.DigestMismatch, errdef.Diverged:
		return 4
	case errdef.ClusterMismatch:
		return 3
	case errdef.NoQuorum:
		return 2
	default:
		return 1
	}
}
