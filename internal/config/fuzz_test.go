package config

import (
	"testing"

	"github.com/ocistern/ocistern/internal/errdef"
)

// FuzzParseFile holds that no file makes the loader panic, and that each is either accepted or refused as
// CONFIG_INVALID.
func FuzzParseFile(f *testing.F) {
	for _, seed := range []string{
		whole, "", "---", "a: &a [*a]", "? [a]\n: b", "name: !!binary aGk=", "<<: {name: a}", "upstreams: [{name: a}]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		values, err := parseFile("config.yaml", content)
		if err == nil {
			effective := map[string]Value{}
			for _, s := range Settings() {
				effective[s.Key] = Value{Setting: s, Texts: []string{s.Default}}
			}
			for _, v := range values {
				effective[v.Setting.Key] = v
			}
			_, _, err = build(effective)
		}
		if err != nil && errdef.ReasonOf(err) != errdef.ConfigInvalid {
			t.Errorf("reason %s: %v", errdef.ReasonOf(err), err)
		}
	})
}

// FuzzItem holds the same for an item in one line.
func FuzzItem(f *testing.F) {
	for _, seed := range []string{
		"a=http://a", "{name: a}", "{match: '**', fresh-for: 1m}", "{match: ghcr.io/a, pinned-tags: [v1=sha256:0]}", "{<<: {}}",
		"{upstream: a, token-file: /t}", "{a: &a [*a]}", "[", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, flag := range []string{"upstream", "credential", "policy"} {
			flags := map[string][]string{"name": {"n1"}, "upstream": {"up.test=http://up"}}
			flags[flag] = append(flags[flag], text)
			_, _, err := Load(Sources{Flags: flags})
			if err != nil && errdef.ReasonOf(err) != errdef.ConfigInvalid {
				t.Errorf("reason %s: %v", errdef.ReasonOf(err), err)
			}
		}
	})
}
