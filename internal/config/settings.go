package config

import (
	"os"
	"strings"
)

// Setting is one row of the table.
type Setting struct {
	Key     string // in the file; sections are joined with dots
	List    bool   // takes any number of values
	Default string // empty for an empty list, or for "found out at start" as Doc says
	Doc     string

	set       func(*Config, Value) error
	structure *structure // of a structured list, whose items are mappings
}

// Flag returns the flag's name: the key with dashes for dots. A structured list has the singular.
func (s Setting) Flag() string {
	if s.structure != nil {
		return s.structure.singular
	}
	return strings.ReplaceAll(s.Key, ".", "-")
}

// Env returns the variable's name: OCISTERN_ and the flag's name in capitals. Lists are separated by commas there.
func (s Setting) Env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.Flag(), "-", "_"))
}

// Settings returns the table.
func Settings() []Setting {
	return []Setting{
		{Key: "name", Default: hostname(), Doc: "name of this node, shown to people", set: nodeName},
		{Key: "data-dir", Default: "/var/lib/ocistern", Doc: "directory for everything the node keeps", set: dataDir},
		{Key: "advertise-host", Default: automatic, Doc: "host name or address under which other nodes and clients reach " +
			"this node; auto takes the listen host, or the first address of this machine", set: advertiseHost},

		{Key: "listen.registry", Default: "0.0.0.0:5000", Doc: "address of the OCI distribution API (/v2/)",
			set: address(func(c *Config) *string { return &c.Listen.Registry })},
		{Key: "listen.grpc", Default: "0.0.0.0:5010", Doc: "address of the gRPC API for clients",
			set: address(func(c *Config) *string { return &c.Listen.GRPC })},
		{Key: "listen.admin", Default: "0.0.0.0:5020", Doc: "address of /livez, /readyz and /metrics",
			set: address(func(c *Config) *string { return &c.Listen.Admin })},
		{Key: "listen.peer", Default: "0.0.0.0:5030", Doc: "address of the gRPC API between nodes",
			set: address(func(c *Config) *string { return &c.Listen.Peer })},
		{Key: "listen.raft", Default: "0.0.0.0:5040", Doc: "address of Raft",
			set: address(func(c *Config) *string { return &c.Listen.Raft })},
		{Key: "listen.gossip", Default: "0.0.0.0:5050", Doc: "address of gossip, TCP and UDP",
			set: address(func(c *Config) *string { return &c.Listen.Gossip })},

		{Key: "cluster.expect", Default: "3", Doc: "number of nodes that form a new cluster once they have found each other",
			set: clusterExpect},
		{Key: "cluster.join", List: true, Doc: "gossip addresses of other nodes, host:port", set: clusterJoin},
		{Key: "cluster.dead-voter-after", Default: "10m", Doc: "time after which a dead node is removed, a voter only where " +
			"a nonvoter can take its place; 0 for never", set: deadVoterAfter},
		{Key: "cluster.feature-level", Default: "0", Doc: "highest feature level that this node lets the cluster rise to, so " +
			"that an older version can run here again; 0 for what this version supports", set: featureLevel},

		structured("upstreams", "registry that may be mirrored, as NAME=URL or as a mapping in YAML", upstreams()),
		structured("credentials", "what an upstream is shown, as a mapping in YAML of paths, never of secrets", credentials()),
		structured("policies", "policy of the repositories that match, as a mapping in YAML; of several the last that sets a "+
			"key wins", policies()),

		{Key: "limits.manifest-bytes", Default: "4MiB", Doc: "largest manifest that is accepted",
			set: into(byteSize(1<<10, 64<<20), func(c *Config) *int64 { return &c.Limits.ManifestBytes })},
		{Key: "limits.memory-bytes", Default: "256MiB", Doc: "memory for small content",
			set: into(byteSize(1<<20, 1<<40), func(c *Config) *int64 { return &c.Limits.MemoryBytes })},

		{Key: "limits.free-bytes", Default: "256MiB", Doc: "free disk below which no content is stored any more",
			set: into(byteSize(0, 1<<40), func(c *Config) *int64 { return &c.Limits.FreeBytes })},
		{Key: "limits.reserve-bytes", Default: "64MiB", Doc: "disk kept aside for the raft log, for when the disk is full " +
			"nevertheless; 0 for none", set: into(byteSize(0, 1<<40), func(c *Config) *int64 { return &c.Limits.ReserveBytes })},

		{Key: "webhook.token-file", Default: none, Doc: "file with the token that registries send with their notifications to /webhooks/ on " +
			"listen.registry; none takes no notifications", set: tokenFile},

		{Key: "log.level", Default: "info", Doc: "debug, info, warn or error", set: logLevel},
	}
}

func structured(key, doc string, s *structure) Setting {
	return Setting{Key: key, List: true, Doc: doc, set: s.set, structure: s}
}

// none is the default of what is left out.
const none = "none"

// automatic is the default of settings that are found out at start.
const automatic = "auto"

// hostname is the default of name. Where the system has none, the name must be configured.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

func settingOf(key string) (Setting, bool) {
	for _, s := range Settings() {
		if s.Key == key {
			return s, true
		}
	}
	return Setting{}, false
}
