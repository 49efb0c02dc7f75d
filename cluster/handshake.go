package cluster

import (
	"bytes"
	"io"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// The handshake precedes Raft's own bytes on every connection. The dialling node says which cluster it speaks for and
// which node it means; the other one answers with a verdict and who it is. Naming the node matters as much as naming
// the cluster: a node whose disk was wiped listens at the old address, and must not vote in the place of the lost
// one.
//
// Wire format: magic, then strings of a length byte and at most maxID bytes. Hello: cluster, target, source. Answer:
// a status byte, cluster, node.
const (
	helloMagic  = "ocistern-raft-1\n"
	answerMagic = "ocistern-raft-1>"
	maxID       = 64
)

type hello struct {
	Cluster string
	Target  catalog.NodeID // whom the connection is meant for
	Source  catalog.NodeID
}

type answer struct {
	Verdict verdict
	Cluster string // empty for a node that belongs to none
	Node    catalog.NodeID
}

// verdict is the outcome of a handshake. The numbers are part of the wire format.
type verdict byte

const (
	admitted     verdict = 0
	otherCluster verdict = 1 // the node belongs or is promised to another cluster
	otherNode    verdict = 2 // another node listens at this address
	cannotAdmit  verdict = 3 // the node could not make its membership durable
)

func (h hello) write(w io.Writer) error {
	return writeStrings(w, helloMagic, h.Cluster, string(h.Target), string(h.Source))
}

func (a answer) write(w io.Writer) error {
	return writeStrings(w, answerMagic+string([]byte{byte(a.Verdict)}), a.Cluster, string(a.Node))
}

func writeStrings(w io.Writer, prefix string, texts ...string) error {
	var message bytes.Buffer
	message.WriteString(prefix)
	for _, text := range texts {
		if len(text) > maxID {
			return errdef.New(errdef.Internal, "handshake: %q is longer than %d bytes", text, maxID)
		}
		message.WriteByte(byte(len(text)))
		message.WriteString(text)
	}
	_, err := w.Write(message.Bytes()) // one write, one packet
	return err
}

// readHello reads not one byte more than the hello: what follows is Raft's.
func readHello(r io.Reader) (hello, error) {
	if err := expect(r, helloMagic); err != nil {
		return hello{}, err
	}
	texts, err := readStrings(r, 3)
	if err != nil {
		return hello{}, err
	}
	h := hello{texts[0], catalog.NodeID(texts[1]), catalog.NodeID(texts[2])}
	if h.Cluster == "" || h.Target == "" || h.Source == "" {
		return hello{}, errdef.New(errdef.CommandInvalid, "handshake: hello with an empty field")
	}
	return h, nil
}

func readAnswer(r io.Reader) (answer, error) {
	if err := expect(r, answerMagic); err != nil {
		return answer{}, err
	}
	var status [1]byte
	if _, err := io.ReadFull(r, status[:]); err != nil {
		return answer{}, err
	}
	if verdict(status[0]) > cannotAdmit {
		return answer{}, errdef.New(errdef.CommandInvalid, "handshake: verdict %d is not known", status[0])
	}
	texts, err := readStrings(r, 2)
	if err != nil {
		return answer{}, err
	}
	return answer{verdict(status[0]), texts[0], catalog.NodeID(texts[1])}, nil
}

func expect(r io.Reader, magic string) error {
	got := make([]byte, len(magic))
	if _, err := io.ReadFull(r, got); err != nil {
		return err
	}
	if string(got) != magic {
		return errdef.New(errdef.CommandInvalid, "handshake: %q is not the raft protocol of ocistern", got)
	}
	return nil
}

func readStrings(r io.Reader, count int) ([]string, error) {
	texts := make([]string, count)
	for i := range texts {
		var length [1]byte
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return nil, err
		}
		if length[0] > maxID {
			return nil, errdef.New(errdef.CommandInvalid, "handshake: a string of %d bytes", length[0])
		}
		text := make([]byte, length[0])
		if _, err := io.ReadFull(r, text); err != nil {
			return nil, err
		}
		texts[i] = string(text)
	}
	return texts, nil
}

// admit decides about a connection. An admitted hello has made this node a member of its cluster, durably, so that
// Raft state never exists without a cluster id that vouches for it.
func (i *identity) admit(h hello) (answer, error) {
	now := i.current()
	reply := answer{Cluster: now.told(), Node: now.ID}
	switch {
	case now.told() != "" && now.told() != h.Cluster:
		reply.Verdict = otherCluster
		return reply, mismatch(now, h.Cluster)
	case h.Target != now.ID:
		reply.Verdict = otherNode
		return reply, errdef.New(errdef.ClusterMismatch, "node %s was called by the name of %s", now.ID, h.Target)
	}
	if err := i.join(h.Cluster); err != nil {
		reply.Verdict = cannotAdmit
		return reply, err
	}
	reply.Cluster = h.Cluster
	return reply, nil
}
