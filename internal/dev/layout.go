package dev

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/ocistern/ocistern/internal/config"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Files in the directory of a node.
const (
	configFile = "config.yaml"
	logFile    = "log.jsonl"
)

// node is one node of the cluster before it runs.
type node struct {
	name   string
	dir    string
	listen config.Listen
}

func (n node) configPath() string { return filepath.Join(n.dir, configFile) }
func (n node) logPath() string    { return filepath.Join(n.dir, logFile) }

// restart is the command that brings a dead node back.
func (n node) restart(options Options) string {
	return fmt.Sprintf("%s serve --config %s", quoted(options.Command), quoted(n.configPath()))
}

// layOut gives each node a directory and addresses, and reserves those. A node that has lived in dir before keeps its
// addresses: the others' Raft configuration names them.
func layOut(dir string, options Options) ([]node, *reservation, error) {
	reserved := &reservation{}
	var nodes []node
	for i := 1; i <= options.Nodes; i++ {
		n := node{name: "n" + strconv.Itoa(i), dir: filepath.Join(dir, "n"+strconv.Itoa(i))}
		recorded, found, err := n.recorded()
		if err == nil && found && options.FixedPorts && options.BasePort != 0 && recorded != fixed(options.BasePort, i) {
			err = errdef.New(errdef.UsageInvalid, "node %s in %s listens on other ports", n.name, dir).
				WithRemedy("leave --base-port out to start it as it was")
		}
		switch {
		case err != nil:
		case found:
			n.listen, err = reserved.take(recorded)
		case options.BasePort == 0:
			n.listen, err = reserved.takeFree()
		default:
			n.listen, err = reserved.take(fixed(options.BasePort, i))
		}
		if err != nil {
			reserved.release()
			return nil, nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, reserved, nil
}

// fixed returns the addresses of node i: the kinds of ports are ten apart.
func fixed(base, i int) config.Listen {
	at := func(offset int) string { return net.JoinHostPort(loopback, strconv.Itoa(base+offset+i)) }
	return config.Listen{Registry: at(0), GRPC: at(10), Admin: at(20), Peer: at(30), Raft: at(40), Gossip: at(50)}
}

// recorded returns the addresses in the configuration file that an earlier cluster has left.
func (n node) recorded() (config.Listen, bool, error) {
	if _, err := os.Stat(n.configPath()); errors.Is(err, fs.ErrNotExist) {
		return config.Listen{}, false, nil
	}
	parsed, _, err := config.Load(config.Sources{File: n.configPath()})
	return parsed.Listen, true, err
}

// writeConfig writes what `ocistern serve` reads.
func (n node) writeConfig(all []node, options Options) error {
	join := []string{}
	for _, other := range all {
		if other.name != n.name {
			join = append(join, other.listen.Gossip)
		}
	}
	flags := options.settings()
	for name, value := range map[string]string{
		"name": n.name, "data-dir": n.dir, "advertise-host": loopback, "cluster-expect": strconv.Itoa(len(all)),
		"listen-registry": n.listen.Registry, "listen-grpc": n.listen.GRPC, "listen-admin": n.listen.Admin,
		"listen-peer": n.listen.Peer, "listen-raft": n.listen.Raft, "listen-gossip": n.listen.Gossip,
	} {
		flags[name] = []string{value}
	}
	flags["cluster-join"] = join
	_, values, err := config.Load(config.Sources{Flags: flags})
	if err != nil {
		return err
	}
	values = slices.DeleteFunc(values, func(v config.Value) bool { return v.Origin == "default" })
	for i := range values {
		values[i].Origin = "" // says nothing here
	}
	var encoded bytes.Buffer
	if err := config.Print(&encoded, "yaml", values); err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll(n.dir, 0o750), os.WriteFile(n.configPath(), encoded.Bytes(), 0o600)); err != nil {
		return errdef.Wrap(errdef.ConfigInvalid, err, "cannot write the configuration of %s", n.name).
			WithRemedy("name another directory with --data")
	}
	return nil
}
