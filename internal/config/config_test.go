package config

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/policy"
	"github.com/ocistern/ocistern/internal/reference"
)

const frozen = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

const whole = `
name: n1
data-dir: /srv/ocistern/
advertise-host: n1.example
listen:
  registry: 127.0.0.1:1
  grpc: 127.0.0.1:2
  admin: "[::1]:3"
  peer: :4
  raft: 0.0.0.0:0
  gossip: 0.0.0.0:0
cluster:
  expect: 5
  dead-voter-after: 1h
  feature-level: 1
  join: [a:5050, "b.example:5050"]
upstreams:
  - {name: ghcr.io, url: https://ghcr.io/}
  - name: up.test
    url: http://127.0.0.1:5001
    allow-addresses: [127.0.0.1, 10.1.2.3/8]
    concurrency: 4
    requests-per-second: 16.5
  - name: private.example
    url: https://registry.example:5443
    ca-file: /etc/ocistern/ca.pem
    certificate-file: /etc/ocistern/client.pem
    key-file: /etc/ocistern/client.key
    requests-per-second: 2
    burst: 7
  - name: quay.io
credentials:
  - {upstream: ghcr.io, docker-config: /etc/ocistern/config.json}
  - upstream: ghcr.io
    tenant: team-a
    username-file: /etc/ocistern/user
    password-file: /etc/ocistern/password
  - {upstream: quay.io, token-file: /etc/ocistern/token}
policies:
  - match: ghcr.io/**
    fresh-for: 1h
    revalidate-for: 0s
    stale-for: 48h
    absent-for: 1s
    referrers-fresh-for: 30m
    immutable-tags: ["v*.*.*", "sha-*"]
    prefetch-depth: 0
    prefetch-bytes: 1MiB
  - match: ghcr.io/org/app
    immutable-tags: []
    pinned-tags: [v1=` + frozen + `]
limits:
  manifest-bytes: 1MiB
  memory-bytes: 33554432
  free-bytes: 1GiB
  reserve-bytes: 0
log: {level: debug}
`

func wholeConfig() Config {
	return Config{
		Name: "n1", DataDir: "/srv/ocistern", AdvertiseHost: "n1.example",
		Listen: Listen{
			Registry: "127.0.0.1:1", GRPC: "127.0.0.1:2", Admin: "[::1]:3", Peer: ":4", Raft: "0.0.0.0:0", Gossip: "0.0.0.0:0",
		},
		Cluster: Cluster{Expect: 5, Join: []string{"a:5050", "b.example:5050"}, DeadVoterAfter: time.Hour, FeatureLevel: 1},
		Upstreams: []Upstream{
			{Name: "ghcr.io", URL: "https://ghcr.io", Concurrency: 32},
			{
				Name: "up.test", URL: "http://127.0.0.1:5001", Concurrency: 4, RequestsPerSecond: 16.5, Burst: 17,
				AllowAddresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("10.0.0.0/8")},
			},
			{
				Name: "private.example", URL: "https://registry.example:5443", CAFile: "/etc/ocistern/ca.pem",
				CertificateFile: "/etc/ocistern/client.pem", KeyFile: "/etc/ocistern/client.key",
				Concurrency: 32, RequestsPerSecond: 2, Burst: 7,
			},
			{Name: "quay.io", URL: "https://quay.io", Concurrency: 32},
		},
		Credentials: []Credential{
			{Upstream: "ghcr.io", DockerConfig: "/etc/ocistern/config.json"},
			{
				Upstream: "ghcr.io", Tenant: "team-a", UsernameFile: "/etc/ocistern/user",
				PasswordFile: "/etc/ocistern/password",
			},
			{Upstream: "quay.io", TokenFile: "/etc/ocistern/token"},
		},
		Policies: []policy.Rule{
			{
				Match: "ghcr.io/**", FreshFor: new(time.Hour), RevalidateFor: new(time.Duration(0)), StaleFor: new(48 * time.Hour),
				AbsentFor: new(time.Second), ReferrersFreshFor: new(30 * time.Minute),
				ImmutableTags: []string{"v*.*.*", "sha-*"}, PrefetchDepth: new(0), PrefetchBytes: new(int64(1 << 20)),
			},
			{
				Match: "ghcr.io/org/app", ImmutableTags: []string{},
				PinnedTags: map[reference.Tag]digest.Digest{"v1": frozen},
			},
		},
		Limits:   Limits{ManifestBytes: 1 << 20, MemoryBytes: 32 << 20, FreeBytes: 1 << 30},
		LogLevel: slog.LevelDebug,
	}
}

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadWholeFile(t *testing.T) {
	got, _, err := Load(Sources{File: writeFile(t, whole)})
	if err != nil {
		t.Fatal(err)
	}
	if want := wholeConfig(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDefaultsAreValid(t *testing.T) {
	got, values, err := Load(Sources{Flags: map[string][]string{"name": {"n1"}}})
	if err != nil {
		t.Fatal(err)
	}
	if got.Cluster.Expect != 3 || got.Listen.GRPC != "0.0.0.0:5010" || got.Limits.ManifestBytes != 4<<20 ||
		got.AdvertiseHost != "" {
		t.Errorf("defaults: %+v", got)
	}
	if len(values) != len(Settings()) {
		t.Errorf("%d values for %d settings", len(values), len(Settings()))
	}
}

func TestPrecedence(t *testing.T) {
	file := writeFile(t, "name: file\ncluster: {expect: 1}\nlog: {level: warn}\n")
	env := []string{"OCISTERN_NAME=env", "OCISTERN_CLUSTER_EXPECT=2", "OCISTERN_CLUSTER_JOIN=a:1, b:2,", "HOME=/"}
	flags := map[string][]string{"name": {"flag"}, "upstream": {"a.test=http://a", "b.test=http://b"}}
	got, values, err := Load(Sources{File: file, Environ: env, Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "flag" || got.Cluster.Expect != 2 || got.LogLevel != slog.LevelWarn || len(got.Upstreams) != 2 {
		t.Errorf("got %+v", got)
	}
	origins := map[string]string{}
	for _, v := range values {
		origins[v.Setting.Key] = v.Origin
	}
	want := map[string]string{
		"name": "--name", "cluster.expect": "OCISTERN_CLUSTER_EXPECT", "cluster.join": "OCISTERN_CLUSTER_JOIN",
		"log.level": "config.yaml:3", "upstreams": "--upstream", "data-dir": "default",
	}
	for key, origin := range want {
		if origins[key] != origin {
			t.Errorf("%s comes from %q, want %q", key, origins[key], origin)
		}
	}
}

func TestWrongFile(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"unknown key", "name: a\nlisten:\n  registri: :1\n",
			`config.yaml:3: unknown key "listen.registri" (did you mean listen.registry?)`},
		{"wrong section", "grpc: :1\n", `config.yaml:1: unknown key "grpc" (did you mean listen.grpc?)`},
		{"far from everything", "zzzzzzzzzz: 1\n", `unknown key "zzzzzzzzzz" (known are name, data-dir`},
		{"unknown key of an upstream", "upstreams:\n- name: a\n  ulr: http://a\n",
			`config.yaml:3: unknown key "upstreams.ulr" (did you mean url?)`},
		{"twice", "name: a\nname: b\n", "config.yaml:2: name was given in line 1 already"},
		{"twice by a dotted key", "log: {level: info}\nlog.level: warn\n",
			"config.yaml:2: log.level was given in line 1 already"},
		{"list for a text", "name: [a]\n", "config.yaml:1: name has no plain value here"},
		{"null", "name:\n", "config.yaml:1: name has no plain value here"},
		{"text for a list", "cluster:\n  join: a:1\n", "config.yaml:2: cluster.join is not a list"},
		{"text for a section", "listen: :1\n", "config.yaml:1: listen is not a mapping"},
		{"list for the file", "- name\n", "config.yaml:1: the file is not a mapping"},
		{"alias", "name: &a n1\nlog: {level: *a}\n", "config.yaml:2: log.level has no plain value here"},
		{"half an upstream", "upstreams:\n- url: http://a\n", "config.yaml:2: an item of upstreams has no name (write name:"},
		{"two documents", "name: a\n---\nname: b\n", "goes on after its first document"},
		{"no YAML", "name: [\n", "config.yaml is not YAML"},
		{"too large", strings.Repeat("#", MaxFileBytes+1), "is larger than 1048576 bytes"},
		{"wrong value", "name: n1\ncluster:\n  expect: many\n",
			`config.yaml:3: cluster.expect "many" is not a number of nodes (a whole number from 1 to 15`},
		{"same address", "name: n1\nlisten:\n  grpc: :7\n  peer: :7\n",
			`config.yaml:4: listen.peer ":7" is the address of listen.grpc too`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := Load(Sources{File: writeFile(t, test.file)})
			wantInvalid(t, err, test.want)
		})
	}
}

func TestWrongValue(t *testing.T) {
	tests := []struct{ flag, value, want string }{
		{"name", "-a", "is not a node name"},
		{"name", strings.Repeat("a", 64), "is not a node name"},
		{"data-dir", "", "is not a directory name"},
		{"advertise-host", "0.0.0.0", "is not a host that others can dial"},
		{"advertise-host", "a:1", "is not a host that others can dial"},
		{"listen-raft", "5040", "is not an address to listen on (HOST:PORT"},
		{"listen-raft", ":65536", "is not an address to listen on"},
		{"cluster-expect", "0", "is not a number of nodes"},
		{"cluster-dead-voter-after", "10", "is not a time (at least 5s, for example 10m, or 0 for never)"},
		{"cluster-dead-voter-after", "-1s", "is not a time"},
		{"cluster-feature-level", "-1", "is not a feature level"},
		{"cluster-join", ":5050", "is not the address of a node"},
		{"cluster-join", "a:0", "is not the address of a node"},
		{"upstream", "ghcr.io", "--upstream: an item of upstreams has no url (NAME=URL"},
		{"upstream", "a/b=http://a", "--upstream: upstreams.name is not a name"},
		{"upstream", "a=ftp://a", "--upstream: upstreams.url begins with neither http:// nor https://"},
		{"upstream", "a=http://a/b", "goes on after the host"},
		{"upstream", "a=http://", "has no valid host"},
		{"limits-manifest-bytes", "4MB", "is not a size in bounds (a number of bytes from 1024 to 67108864"},
		{"limits-manifest-bytes", "65MiB", "is not a size in bounds"},
		{"limits-memory-bytes", "9223372036854775807GiB", "is not a size in bounds"},
		{"log-level", "verbose", "is not a log level (debug, info, warn or error)"},
	}
	for _, test := range tests {
		t.Run(test.flag+"="+test.value, func(t *testing.T) {
			_, _, err := Load(Sources{Flags: map[string][]string{"name": {"n1"}, test.flag: {test.value}}})
			wantInvalid(t, err, test.want)
		})
	}
	_, _, err := Load(Sources{Flags: map[string][]string{"upstream": {"a=http://a", "a=http://b"}, "name": {"n1"}}})
	wantInvalid(t, err, "--upstream, item 2: upstreams has a twice")
}

func TestErrorsKeepSecrets(t *testing.T) {
	for _, value := range []string{
		"a=http://user:hunter2@a", "http://user:hunter2@a", "=http://user:hunter2@a", "a=http://user:hunter2@a/%",
		"{name: a, url: http://user:hunter2@a}", "{name: a, password: hunter2}", "{name: a, url: [hunter2]}", "{hunter2",
		"hunter2", " {name: a} hunter2", "{name: a, name: *hunter2}",
	} {
		_, _, err := Load(Sources{Flags: map[string][]string{"name": {"n1"}, "upstream": {value}}})
		wantInvalid(t, err, "--upstream")
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error repeats the password: %v", err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	_, _, err := Load(Sources{Environ: []string{"OCISTERN_NAM=a"}})
	wantInvalid(t, err, "unknown variable OCISTERN_NAM (did you mean OCISTERN_NAME?)")

	kubernetes := []string{
		"OCISTERN_NAME=n1", "OCISTERN_SERVICE_HOST=10.0.0.1", "OCISTERN_SERVICE_PORT=5000", "OCISTERN_SERVICE_PORT_GRPC=5010",
		"OCISTERN_PORT=tcp://10.0.0.1:5000", "OCISTERN_PORT_5000_TCP=tcp://10.0.0.1:5000", "OCISTERN_PORT_5000_TCP_PROTO=tcp",
		"OCISTERN_CLIENT_SERVICE_HOST=10.0.0.2", "OCISTERN_ENDPOINTS=a:1",
	}
	if _, _, err := Load(Sources{Environ: kubernetes}); err != nil {
		t.Errorf("variables that Kubernetes sets for a Service: %v", err)
	}
}

func TestFlags(t *testing.T) {
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	AddFlags(flags)
	if err := flags.Parse([]string{"--name", "n1", "--upstream", "a=http://a", "--upstream=b=http://b"}); err != nil {
		t.Fatal(err)
	}
	got, err := FlagValues(flags)
	want := map[string][]string{"name": {"n1"}, "upstream": {"a=http://a", "b=http://b"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestSettingsNames(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Settings() {
		if seen[s.Flag()] || seen[s.Env()] || s.Doc == "" || s.set == nil || s.structure != nil && !s.List {
			t.Errorf("row %s is not complete or not unique", s.Key)
		}
		if foreignVariable.MatchString(s.Env()) {
			t.Errorf("%s would be taken for a variable of Kubernetes", s.Env())
		}
		seen[s.Flag()], seen[s.Env()] = true, true
	}
}

func wantInvalid(t *testing.T, err error, want string) {
	t.Helper()
	if !errors.Is(err, errdef.ErrConfigInvalid) || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want CONFIG_INVALID with %q", err, want)
	}
}
