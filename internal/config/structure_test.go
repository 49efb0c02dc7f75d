package config

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/ocistern/ocistern/internal/policy"
)

func TestWrongItems(t *testing.T) {
	const up = "upstreams: [{name: ghcr.io}]\n"
	tests := []struct{ name, file, want string }{
		{"no mapping", "upstreams:\n- ghcr.io\n", "config.yaml:2: an item of upstreams is not a mapping"},
		{"unknown key", up + "policies:\n- match: ghcr.io/**\n  fresh: 1m\n",
			`config.yaml:4: unknown key "policies.fresh" (known are match, fresh-for`},
		{"near key", up + "credentials:\n- upstream: ghcr.io\n  token: /t\n  tokenfile: /t\n", `config.yaml:4: unknown key "credentials.token"`},
		{"nearest key", up + "credentials:\n- upstream: ghcr.io\n  tokenfile: /t\n", "(did you mean token-file?)"},
		{"key twice", up + "policies:\n- match: ghcr.io/**\n  match: '**'\n", "config.yaml:4: policies.match was given already"},
		{"nested", up + "policies:\n- match: {a: b}\n", "config.yaml:3: policies.match has no plain value here"},
		{"list for a text", up + "policies:\n- match: [a]\n", "config.yaml:3: policies.match has no plain value here"},
		{"text for a list", up + "policies:\n- match: '**'\n  immutable-tags: v*\n", "config.yaml:4: policies.immutable-tags is not a list"},
		{"nested list", up + "policies:\n- match: '**'\n  immutable-tags: [[a]]\n", "config.yaml:4: policies.immutable-tags has no plain value"},
		{"merge", "x: &x {name: a}\nupstreams: [{<<: *x}]\n", `unknown key "x"`},
		{"alias", "upstreams:\n- &x {name: a}\n- *x\n", "config.yaml:3: an item of upstreams is not a mapping"},

		{"upstream twice", "upstreams:\n- name: a\n- name: a\n", "config.yaml:3: upstreams has a twice"},
		{"half a certificate", "upstreams:\n- {name: a, key-file: /k}\n", "config.yaml:2: upstream a has only one of certificate-file and key-file"},
		{"certificates without TLS", "upstreams:\n- {name: a, url: 'http://a', ca-file: /c}\n", "has certificates and a URL without TLS"},
		{"burst without limit", "upstreams:\n- {name: a, burst: 3}\n", "config.yaml:2: upstream a has a burst and no limit"},
		{"no prefix", "upstreams:\n- {name: a, allow-addresses: [10.0.0.0/33]}\n", `config.yaml:2: upstreams.allow-addresses "10.0.0.0/33" has "10.0.0.0/33", which is no range`},
		{"no concurrency", "upstreams:\n- {name: a, concurrency: 0}\n", `upstreams.concurrency "0" is not a number in bounds (a whole number from 1 to`},
		{"no rate", "upstreams:\n- {name: a, requests-per-second: NaN}\n", `upstreams.requests-per-second "NaN" is not a number of requests`},

		{"unknown upstream", up + "credentials:\n- {upstream: ghcr, token-file: /t}\n",
			`config.yaml:3: a credential is for "ghcr", which is not a configured upstream (add it to upstreams`},
		{"no kind", up + "credentials:\n- {upstream: ghcr.io}\n", "config.yaml:3: a credential for ghcr.io is not one of the four kinds"},
		{"two kinds", up + "credentials:\n- {upstream: ghcr.io, token-file: /t, docker-config: /c}\n", "is not one of the four kinds"},
		{"half a kind", up + "credentials:\n- {upstream: ghcr.io, password-file: /t}\n", "is not one of the four kinds"},
		{"two for one tenant", up + "credentials:\n- {upstream: ghcr.io, token-file: /t}\n- {upstream: ghcr.io, token-file: /u}\n",
			"config.yaml:4: upstream ghcr.io has two credentials for one tenant"},
		{"no tenant", up + "credentials:\n- {upstream: ghcr.io, tenant: A, token-file: /t}\n", `credentials.tenant "A" is not a tenant`},
		{"no file", up + "credentials:\n- {upstream: ghcr.io, token-file: ''}\n", `credentials.token-file "" is not a file name`},

		{"no pattern", up + "policies:\n- match: GHCR.io/**\n", `config.yaml:3: policies.match "GHCR.io/**" is not a pattern`},
		{"no upstream matches", up + "policies:\n- match: quay.io/**\n",
			`config.yaml:3: a policy is for "quay.io/**", which no repository of a configured upstream can match (begin it with`},
		{"an upstream and no repository", up + "policies:\n- match: ghcr.io\n", "which no repository of a configured upstream can match"},
		{"no time", up + "policies:\n- match: '**'\n  fresh-for: 5\n", `config.yaml:4: policies.fresh-for "5" is not a time in bounds (0 to 87600h, for example`},
		{"negative time", up + "policies:\n- match: '**'\n  stale-for: -1s\n", `policies.stale-for "-1s" is not a time in bounds`},
		{"no size", up + "policies:\n- match: '**'\n  prefetch-bytes: 65MiB\n", `policies.prefetch-bytes "65MiB" is not a size in bounds`},
		{"no depth", up + "policies:\n- match: '**'\n  prefetch-depth: 9\n", `policies.prefetch-depth "9" is not a number in bounds`},
		{"no tag pattern", up + "policies:\n- match: '**'\n  immutable-tags: ['v1:']\n", `has "v1:", which is not a pattern of tags`},
		{"pin without digest", up + "policies:\n- match: ghcr.io/a\n  pinned-tags: [v1]\n", "config.yaml:4: policies.pinned-tags \"v1\" pins v1 to no digest"},
		{"pin twice", up + "policies:\n- match: ghcr.io/a\n  pinned-tags: [v1=" + frozen + ", v1=" + frozen + "]\n", "pins v1 twice"},
		{"pin for many", up + "policies:\n- match: ghcr.io/*\n  pinned-tags: [v1=" + frozen + "]\n",
			"config.yaml:3: tags are pinned for ghcr.io/*, which may match several repositories (pin tags in a rule"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := Load(Sources{File: writeFile(t, test.file), Flags: map[string][]string{"name": {"n1"}}})
			wantInvalid(t, err, test.want)
		})
	}
}

// Flags, variables and file say the same thing in their own ways.
func TestItemsFromEverywhere(t *testing.T) {
	const rule = `{match: "ghcr.io/**", fresh-for: 1m, immutable-tags: ["v*", stable]}`
	load := func(sources Sources) Config {
		t.Helper()
		got, _, err := Load(sources)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	want := load(Sources{File: writeFile(t, "name: n1\nupstreams:\n- {name: ghcr.io}\n- {name: up.test, url: 'http://up'}\n"+
		"policies:\n- "+rule+"\n- match: '**'\n")})
	name := []string{"n1"}
	for from, sources := range map[string]Sources{
		"flags": {Flags: map[string][]string{
			"name": name, "upstream": {" {name: ghcr.io}", "up.test=http://up"}, "policy": {rule, "match: '**'"},
		}},
		"variables": {Environ: []string{
			"OCISTERN_NAME=n1", "OCISTERN_UPSTREAM=ghcr.io=https://ghcr.io, up.test=http://up",
			"OCISTERN_POLICY=[" + rule + ", {match: '**'}]",
		}},
		"a variable in YAML": {
			Environ: []string{"OCISTERN_UPSTREAM= [{name: ghcr.io}, {name: up.test, url: 'http://up'}]"},
			Flags:   map[string][]string{"name": name, "policy": {rule, "{match: '**'}"}},
		},
	} {
		if got := load(sources); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", from, got, want)
		}
	}
	emptied := load(Sources{
		File: writeFile(t, "upstreams: [{name: a}]\n"), Environ: []string{"OCISTERN_UPSTREAM=", "OCISTERN_POLICY="},
		Flags: map[string][]string{"name": name},
	})
	if len(emptied.Upstreams) > 0 {
		t.Errorf("an empty variable leaves %v", emptied.Upstreams)
	}
	for variable, text := range map[string]string{
		"OCISTERN_POLICY=ghcr.io/**": "OCISTERN_POLICY: policies is not a list", "OCISTERN_POLICY=[": "OCISTERN_POLICY is not YAML",
		"OCISTERN_UPSTREAM=a=http://a,b": "OCISTERN_UPSTREAM, item 2: an item of upstreams has no url",
	} {
		_, _, err := Load(Sources{Environ: []string{variable}, Flags: map[string][]string{"name": name}})
		wantInvalid(t, err, text)
	}
	for value, text := range map[string]string{
		"": "--policy: an item of policies is not a mapping", "a": "is not a mapping", "{match: '**'}\n---\n": "--policy is not YAML",
	} {
		_, _, err := Load(Sources{Flags: map[string][]string{"name": name, "policy": {value}}})
		wantInvalid(t, err, text)
	}
}

func TestItemsInJSON(t *testing.T) {
	_, values, err := Load(Sources{File: writeFile(t, whole)})
	if err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	if err := Print(&printed, "json", values); err != nil {
		t.Fatal(err)
	}
	var got []struct {
		Key   string
		Value any
	}
	if err := json.Unmarshal(printed.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for _, row := range got {
		if row.Key != "policies" {
			continue
		}
		want := map[string]any{
			"match": "ghcr.io/org/app", "immutable-tags": []any{}, "pinned-tags": []any{"v1=" + frozen},
		}
		if rules := row.Value.([]any); !reflect.DeepEqual(rules[1], want) {
			t.Errorf("got %v, want %v", rules[1], want)
		}
		return
	}
	t.Error("no policies")
}

// Every field that an explanation names can be written into the configuration under that name, as it is shown there.
func TestExplanationsAreConfiguration(t *testing.T) {
	parsed, _, err := Load(Sources{File: writeFile(t, whole)})
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.NewSet(parsed.Policies)
	if err != nil {
		t.Fatal(err)
	}
	table, _ := settingOf("policies")
	file := "name: n1\nupstreams: [{name: ghcr.io}]\npolicies:\n- match: ghcr.io/org/app\n"
	for _, f := range set.Explain("ghcr.io/org/app") {
		if column, found := table.column(f.Name); found && column.List {
			f.Value = "[" + f.Value + "]"
		}
		file += "  " + f.Name + ": " + f.Value + "\n"
	}
	again, _, err := Load(Sources{File: writeFile(t, file)})
	if err != nil {
		t.Fatalf("%v\n%s", err, file)
	}
	copied, err := policy.NewSet(again.Policies)
	if err != nil || !reflect.DeepEqual(copied.For("ghcr.io/org/app"), set.For("ghcr.io/org/app")) {
		t.Errorf("%v\n%s", err, file)
	}
}
