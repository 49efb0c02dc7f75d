package cluster

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

const (
	// reclaimTime is how long a dead node must have been dead before its id may come back at another address. With 0,
	// memberlist would ignore a pod that returns under a new IP.
	reclaimTime = time.Second
	// announceTimeout bounds the wait until a change of this node's metadata has left for another node.
	announceTimeout = 500 * time.Millisecond
)

// gossip knows which nodes there are. What it says is a hint: it never is a reason to remove a voter.
type gossip struct {
	config   *Config
	identity *identity
	logger   *slog.Logger
	lifetime context.Context
	list     *memberlist.Memberlist
	address  string        // where this node gossips, as the others see it
	changed  chan struct{} // capacity 1: something is different

	leaving  atomic.Bool
	complete atomic.Bool // all addresses of Config.Join answered in the last round

	mutex     sync.Mutex // guards what follows
	sightings map[catalog.NodeID]sighting
	strangers map[string]string // gossip address of a node of another cluster -> that cluster
	astray    error             // not nil when Config.Join leads to another cluster than this node's
	kin       map[string]kin    // by cluster id: what this node's was recovered as without it, or was before
}

// sighting is what was last heard of another node.
type sighting struct {
	metadata
	Gossip string // where it gossips, an IP address and port
	State  State
}

func openGossip(lifetime context.Context, cfg *Config, id *identity, logger *slog.Logger) (*gossip, error) {
	g := &gossip{
		config: cfg, identity: id, logger: logger, lifetime: lifetime, changed: make(chan struct{}, 1),
		sightings: map[catalog.NodeID]sighting{}, strangers: map[string]string{}, kin: map[string]kin{},
	}
	if err := g.self().checkSize(); err != nil {
		return nil, err
	}
	conf, err := g.memberlistConfig()
	if err != nil {
		return nil, err
	}
	if g.list, err = memberlist.Create(conf); err != nil {
		return nil, g.createError(err)
	}
	g.address = g.list.LocalNode().Address()
	bound := &net.TCPAddr{IP: net.ParseIP(conf.BindAddr), Port: int(g.list.LocalNode().Port)}
	if cfg.Advertise.Gossip, err = advertised(cfg.Advertise.Gossip, bound); err != nil {
		return nil, errors.Join(err, g.list.Shutdown())
	}
	return g, nil
}

func (g *gossip) memberlistConfig() (*memberlist.Config, error) {
	listen, err := net.ResolveTCPAddr("tcp", g.config.Listen.Gossip)
	if err != nil {
		return nil, errdef.Wrap(errdef.ConfigInvalid, err, "listen.gossip: %q", g.config.Listen.Gossip)
	}
	if listen.IP == nil {
		listen.IP = net.IPv4zero
	}
	conf := memberlist.DefaultLANConfig()
	conf.Name = string(g.identity.current().ID)
	conf.BindAddr, conf.BindPort = listen.IP.String(), listen.Port
	conf.AdvertiseAddr, conf.AdvertisePort = g.advertise(listen)
	conf.TCPTimeout = g.config.Timings.Call
	conf.ProbeInterval = g.config.Timings.Probe
	conf.ProbeTimeout = g.config.Timings.Probe / 2
	conf.PushPullInterval = 10 * g.config.Timings.Probe
	conf.GossipToTheDeadTime = 30 * g.config.Timings.Probe
	conf.DeadNodeReclaimTime = reclaimTime
	conf.Delegate, conf.Events, conf.Alive, conf.Conflict = g, g, g, g
	conf.Logger = newLineLogger(g.logger, "gossip")
	conf.Transport, err = g.config.Environment.Network.Gossip(g.config.Listen.Gossip)
	if err != nil {
		return nil, listenError(err, "listen.gossip", g.config.Listen.Gossip)
	}
	return conf, nil
}

// advertise returns the IP address and port that memberlist tells the others; it knows no names. An empty address
// lets it choose: the bound one, else a private address of this machine.
func (g *gossip) advertise(listen *net.TCPAddr) (string, int) {
	host, text, err := net.SplitHostPort(g.config.Advertise.Gossip)
	if err != nil || host == "" {
		return "", listen.Port
	}
	port, err := strconv.Atoi(text)
	if err != nil || port == 0 {
		port = listen.Port
	}
	ctx, cancel := context.WithTimeout(g.lifetime, g.config.Timings.Call)
	defer cancel()
	found, err := g.config.Environment.Network.LookupIPAddr(ctx, host)
	if err != nil || len(found) == 0 {
		g.logger.Warn("advertised host does not resolve yet; gossip tells an address of this machine",
			"host", host, "error", err)
		return "", port
	}
	return found[0].IP.String(), port
}

// createError finds out why memberlist could not start, since it loses the cause.
func (g *gossip) createError(cause error) error {
	tcp, err := net.Listen("tcp", g.config.Listen.Gossip)
	if err != nil {
		return listenError(err, "listen.gossip", g.config.Listen.Gossip)
	}
	tcp.Close()
	udp, err := net.ListenPacket("udp", g.config.Listen.Gossip)
	if err != nil {
		return listenError(err, "listen.gossip", g.config.Listen.Gossip)
	}
	cause = errors.Join(cause, udp.Close())
	return errdef.Wrap(errdef.ConfigInvalid, cause, "gossip cannot start on %s", g.config.Listen.Gossip)
}

// self is what this node tells now.
func (g *gossip) self() metadata {
	now, told := g.identity.current(), g.config.Advertise
	was := catalog.NodeID("")
	if now.ClusterID == "" && now.Rejoin != nil {
		was = now.Rejoin.Was
	}
	return metadata{
		Name: g.config.Name, Cluster: now.told(), Promised: now.ClusterID == "" && now.told() != "",
		Leaving: g.leaving.Load(), Formerly: now.Formerly, Retired: now.Retired != nil,
		Disputes: len(now.Forks) > 0, Was: was,
		Raft: told.Raft, Peer: told.Peer, GRPC: told.GRPC, Registry: told.Registry,
	}
}

// announce tells the others that this node changed. A timeout is no failure: push and pull bring the news later.
func (g *gossip) announce() {
	if err := g.list.UpdateNode(announceTimeout); err != nil {
		g.logger.Debug("nobody has taken the news of this node yet", "error", err)
	}
}

// leave says goodbye, so that the others know this node as left, not dead.
func (g *gossip) leave() {
	g.leaving.Store(true)
	g.announce()
	if err := g.list.Leave(announceTimeout); err != nil {
		g.logger.Debug("nobody has taken the goodbye", "error", err)
	}
}

// seen returns a copy of what was heard of the other nodes.
func (g *gossip) seen() map[catalog.NodeID]sighting {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	copied := make(map[catalog.NodeID]sighting, len(g.sightings))
	for id, s := range g.sightings {
		copied[id] = s
	}
	return copied
}

func (g *gossip) sighting(id catalog.NodeID) (sighting, bool) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	s, ok := g.sightings[id]
	return s, ok
}
