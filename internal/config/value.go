package config

import (
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
	hostPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)
)

// maxExpect bounds a first cluster: more voters only make commits slower, and further nodes can join later.
const maxExpect = 15

func nodeName(c *Config, v Value) error {
	c.Name = v.Texts[0]
	if !namePattern.MatchString(c.Name) {
		return v.invalid("is not a node name").WithRemedy("letters, digits and . _ -, at most 63, for example node-1")
	}
	return nil
}

func dataDir(c *Config, v Value) error {
	if v.Texts[0] == "" || strings.ContainsRune(v.Texts[0], 0) {
		return v.invalid("is not a directory name").WithRemedy("give a path, for example /var/lib/ocistern")
	}
	c.DataDir = filepath.Clean(v.Texts[0])
	return nil
}

func advertiseHost(c *Config, v Value) error {
	host := v.Texts[0]
	if host == automatic {
		return nil
	}
	if !validHost(host) || unspecified(host) {
		return v.invalid("is not a host that others can dial").WithRemedy("give a name or an address without port, or auto")
	}
	c.AdvertiseHost = host
	return nil
}

func address(field func(*Config) *string) func(*Config, Value) error {
	return func(c *Config, v Value) error {
		if !validAddress(v.Texts[0], true) {
			return v.invalid("is not an address to listen on").WithRemedy("HOST:PORT, for example 0.0.0.0:5000 or [::1]:5000")
		}
		*field(c) = v.Texts[0]
		return nil
	}
}

func clusterExpect(c *Config, v Value) error {
	n, err := strconv.Atoi(v.Texts[0])
	if err != nil || n < 1 || n > maxExpect {
		return v.invalid("is not a number of nodes").
			WithRemedy("a whole number from 1 to %d; 3 survives the loss of one node", maxExpect)
	}
	c.Cluster.Expect = n
	return nil
}

func clusterJoin(c *Config, v Value) error {
	for _, text := range v.Texts {
		if !validAddress(text, false) {
			return v.invalid("has %q, which is not the address of a node", text).
				WithRemedy("HOST:PORT of the other node's listen.gossip, for example ocistern-0.ocistern:5050")
		}
	}
	c.Cluster.Join = v.Texts
	return nil
}

// leastDeadVoterAfter is about what gossip needs to see that a node is dead. A restart takes longer, so more is wise.
const leastDeadVoterAfter = 5 * time.Second

func deadVoterAfter(c *Config, v Value) error {
	after, err := time.ParseDuration(v.Texts[0])
	if err != nil || after != 0 && after < leastDeadVoterAfter {
		return v.invalid("is not a time").WithRemedy("at least %s, for example 10m, or 0 for never", leastDeadVoterAfter)
	}
	c.Cluster.DeadVoterAfter = after
	return nil
}

// byteSize reads a number of bytes.
func byteSize(least, most int64) func(Value) (int64, error) {
	return func(v Value) (int64, error) {
		n, ok := parseBytes(v.Texts[0])
		if !ok || n < least || n > most {
			return 0, v.invalid("is not a size in bounds").
				WithRemedy("a number of bytes from %d to %d; KiB, MiB and GiB may follow, for example 4MiB", least, most)
		}
		return n, nil
	}
}

// wholeNumber reads a number.
func wholeNumber(least, most int) func(Value) (int, error) {
	return func(v Value) (int, error) {
		n, err := strconv.Atoi(v.Texts[0])
		if err != nil || n < least || n > most {
			return 0, v.invalid("is not a number in bounds").WithRemedy("a whole number from %d to %d", least, most)
		}
		return n, nil
	}
}

// period reads a time, which may be 0.
func period(most time.Duration) func(Value) (time.Duration, error) {
	return func(v Value) (time.Duration, error) {
		d, err := time.ParseDuration(v.Texts[0])
		if err != nil || d < 0 || d > most {
			return 0, v.invalid("is not a time in bounds").
				WithRemedy("0 to %.0fh, for example 30s, 5m or 24h", most.Hours())
		}
		return d, nil
	}
}

// path reads the name of a file. Whether it can be read is for whoever reads it to say: it may come later.
func path(v Value) (string, error) {
	if v.Texts[0] == "" || strings.ContainsRune(v.Texts[0], 0) {
		return "", v.invalid("is not a file name").WithRemedy("give a path, for example /etc/ocistern/token")
	}
	return filepath.Clean(v.Texts[0]), nil
}

func parseBytes(text string) (int64, bool) {
	shift := 0
	for suffix, bits := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30} {
		if rest, found := strings.CutSuffix(text, suffix); found {
			text, shift = strings.TrimSpace(rest), bits
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > (1<<62)>>shift {
		return 0, false
	}
	return n << shift, true
}

func featureLevel(c *Config, v Value) error {
	level, err := strconv.ParseUint(v.Texts[0], 10, 32)
	if err != nil {
		return v.invalid("is not a feature level").WithRemedy("a whole number, as ocistern status shows it, or 0 for no limit")
	}
	c.Cluster.FeatureLevel = uint32(level)
	return nil
}

func tokenFile(c *Config, v Value) error {
	if v.Texts[0] == none {
		return nil
	}
	if v.Texts[0] == "" || strings.ContainsRune(v.Texts[0], 0) {
		return v.invalid("is not a file name").WithRemedy("give a path, for example /etc/ocistern/webhook-token")
	}
	c.WebhookTokenFile = v.Texts[0]
	return nil
}

func logLevel(c *Config, v Value) error {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	level, known := levels[v.Texts[0]]
	if !known {
		return v.invalid("is not a log level").WithRemedy("debug, info, warn or error")
	}
	c.LogLevel = level
	return nil
}

// validAddress tells whether text is host:port. Only a listener may have an empty host or port 0.
func validAddress(text string, listener bool) bool {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || (n == 0 && !listener) {
		return false
	}
	return (listener && host == "") || validHost(host)
}

func validHost(host string) bool { return net.ParseIP(host) != nil || hostPattern.MatchString(host) }

func unspecified(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsUnspecified()
}
