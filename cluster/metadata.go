package cluster

import (
	"encoding/json"
	"net"
	"strings"

	"github.com/hashicorp/memberlist"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// metadata is what a node tells through gossip. Its keys are short and its hosts are written once: memberlist carries
// at most 512 bytes and panics over more. Keys are only ever added.
type metadata struct {
	Name     string `json:"n,omitempty"`
	Cluster  string `json:"c,omitempty"` // member of, or promised to
	Promised bool   `json:"p,omitempty"` // not yet a member of Cluster
	Formerly string `json:"f,omitempty"` // the last cluster that was recovered as Cluster; see lineage for all of them
	Disputes bool   `json:"d,omitempty"` // Cluster was recovered as another one by mistake
	// Was is the former id of a node that is to rejoin Cluster, and that has lost its Raft state. Such a node has no Formerly.
	Was      catalog.NodeID `json:"w,omitempty"`
	Leaving  bool           `json:"l,omitempty"` // shutting down in good order
	Retired  bool           `json:"x,omitempty"` // its id takes no part any more, or will not soon
	Raft     string         `json:"r,omitempty"`
	Peer     string         `json:"e,omitempty"`
	GRPC     string         `json:"g,omitempty"`
	Registry string         `json:"h,omitempty"`
}

// empty tells that the node belongs to nothing and may become a voter of a new cluster.
func (m metadata) empty() bool { return m.Cluster == "" }

// member tells that the node belongs to a cluster.
func (m metadata) member() bool { return m.Cluster != "" && !m.Promised }

// encode fails with reason CONFIG_INVALID for what does not fit.
func (m metadata) encode() ([]byte, error) {
	host, _, err := net.SplitHostPort(m.Raft)
	if err != nil {
		return nil, errdef.Wrap(errdef.ConfigInvalid, err, "raft address %q", m.Raft)
	}
	for _, address := range []*string{&m.Peer, &m.GRPC, &m.Registry} {
		if port, same := strings.CutPrefix(*address, net.JoinHostPort(host, "")); same {
			*address = ":" + port
		}
	}
	encoded, err := json.Marshal(m)
	if err != nil {
		return nil, errdef.Wrap(errdef.Internal, err, "gossip metadata")
	}
	if len(encoded) > memberlist.MetaMaxSize {
		return nil, errdef.New(errdef.ConfigInvalid, "name and addresses take %d bytes in gossip", len(encoded)).
			WithRemedy("shorten them to %d bytes: name, advertise-host", memberlist.MetaMaxSize)
	}
	return encoded, nil
}

// decodeMetadata reads what another node told. An address without a host is on the host of the Raft address.
func decodeMetadata(encoded []byte) (metadata, error) {
	var m metadata
	if err := json.Unmarshal(encoded, &m); err != nil {
		return metadata{}, errdef.Wrap(errdef.CommandInvalid, err, "gossip metadata")
	}
	host, _, err := net.SplitHostPort(m.Raft)
	if err != nil {
		return metadata{}, errdef.Wrap(errdef.CommandInvalid, err, "gossip metadata: raft address %q", m.Raft)
	}
	for _, address := range []*string{&m.Peer, &m.GRPC, &m.Registry} {
		if port, same := strings.CutPrefix(*address, ":"); same {
			*address = net.JoinHostPort(host, port)
		}
	}
	return m, nil
}

// checkSize refuses, before anything is started, addresses that would not fit once the node belongs to a cluster.
func (m metadata) checkSize() error {
	m.Cluster, m.Promised, m.Leaving, m.Retired = strings.Repeat("c", len(newID())), true, true, true
	m.Formerly, m.Was, m.Disputes = m.Cluster, "", false // Formerly or Was, Promised or Disputes: each as long as the other
	_, err := m.encode()
	return err
}
