// Package config reads the configuration of one node: flags over OCISTERN_* environment over a YAML file over defaults.
//
// One table (Settings) names every setting; flags, variables, file keys, validation and printed documentation follow
// from it. The package opens no port and makes no directory: package node does, with what is read here.
package config

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/policy"
)

// Config is the validated configuration of one node.
type Config struct {
	Name          string // of this node, for people; the node id is drawn by the node itself
	DataDir       string
	AdvertiseHost string // empty: the listen host, or an address of this machine
	Listen        Listen
	Cluster       Cluster
	Upstreams     []Upstream
	Credentials   []Credential
	Policies      []policy.Rule
	Limits        Limits
	// WebhookTokenFile has the token of those who may notify the node; empty for none.
	WebhookTokenFile string
	LogLevel         slog.Level
}

// Listen holds the addresses, host:port, that the node listens on. Port 0 takes a free port.
type Listen struct {
	Registry, GRPC, Admin, Peer, Raft, Gossip string
}

// Cluster tells how the node finds the others.
type Cluster struct {
	Expect int      // nodes with empty disks that form a new cluster together
	Join   []string // gossip addresses, host:port; names are resolved at each attempt
	// DeadVoterAfter is how long a member must be dead before a nonvoter takes its place; 0 for never.
	// FeatureLevel is the highest that this node lets the cluster rise to; 0 for what the build supports.
	FeatureLevel   uint32
	DeadVoterAfter time.Duration
}

// Limits bounds what the node takes in, in bytes.
type Limits struct {
	ManifestBytes int64 // of one manifest
	MemoryBytes   int64 // of the memory tier for small content
	FreeBytes     int64 // of the disk that content leaves free
	ReserveBytes  int64 // of the disk that are kept for the raft log
}

// Sources is where the configuration comes from.
type Sources struct {
	File    string              // path of the YAML file, empty for none
	Environ []string            // as of os.Environ
	Flags   map[string][]string // values by flag name, only of flags that were given
}

// Value is one effective setting and where it comes from.
type Value struct {
	Setting Setting
	Texts   []string // one, or any number for a list
	Items   []Item   // instead of Texts for a structured list
	Origin  string   // "default", FILE:LINE, the name of the variable, or the flag
}

// Load reads, merges and validates. It returns the effective value of every setting too, in the order of Settings. Its
// errors are of reason CONFIG_INVALID and say where the wrong value stands and what would be right.
func Load(sources Sources) (Config, []Value, error) {
	effective := map[string]Value{}
	for _, s := range Settings() {
		value := Value{Setting: s, Origin: "default"}
		if s.Default != "" {
			value.Texts = []string{s.Default}
		}
		effective[s.Key] = value
	}
	for _, read := range []func(Sources) ([]Value, error){readFile, readEnvironment, readFlags} {
		values, err := read(sources)
		if err != nil {
			return Config{}, nil, err
		}
		for _, v := range values {
			effective[v.Setting.Key] = v
		}
	}
	return build(effective)
}

func build(effective map[string]Value) (Config, []Value, error) {
	var (
		config Config
		values []Value
	)
	for _, s := range Settings() {
		value := effective[s.Key]
		values = append(values, value)
		if !s.List && len(value.Texts) != 1 {
			return Config{}, nil, value.invalid("has %d values", len(value.Texts)).WithRemedy("give one value")
		}
		if err := s.set(&config, value); err != nil {
			return Config{}, nil, err
		}
	}
	if err := distinctAddresses(values); err != nil {
		return Config{}, nil, err
	}
	return config, values, nil
}

// distinctAddresses refuses two listeners on one address, which would else be reported as taken by another process.
func distinctAddresses(values []Value) error {
	taken := map[string]Value{}
	for _, v := range values {
		if !strings.HasPrefix(v.Setting.Key, "listen.") || strings.HasSuffix(v.Texts[0], ":0") {
			continue
		}
		if other, found := taken[v.Texts[0]]; found {
			return v.invalid("is the address of %s too", other.Setting.Key).WithRemedy("give each listener a port of its own")
		}
		taken[v.Texts[0]] = v
	}
	return nil
}

func readFlags(sources Sources) ([]Value, error) {
	var values []Value
	for _, s := range Settings() {
		texts, given := sources.Flags[s.Flag()]
		if !given {
			continue
		}
		v := Value{Setting: s, Origin: "--" + s.Flag()}
		if s.structure == nil {
			v.Texts = slices.Clone(texts)
		} else {
			var err error
			if v.Items, err = itemsOf(s, texts, v.Origin); err != nil {
				return nil, err
			}
		}
		values = append(values, v)
	}
	return values, nil
}

// invalid returns an error that repeats v and says where it was given.
func (v Value) invalid(format string, args ...any) *errdef.Error {
	return v.wrong("%q "+format, append([]any{shown(strings.Join(v.Texts, ","))}, args...)...)
}

// wrong is invalid without repeating the value, for what may hold a secret.
func (v Value) wrong(format string, args ...any) *errdef.Error {
	return errdef.New(errdef.ConfigInvalid, "%s: %s "+format, append([]any{v.Origin, v.Setting.Key}, args...)...)
}

// maxShown bounds how much of a wrong value an error repeats, in bytes.
const maxShown = 120

func shown(text string) string {
	if len(text) > maxShown {
		return text[:maxShown] + "..."
	}
	return text
}
