package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/ocistern/ocistern/internal/errdef"
)

const envPrefix = "OCISTERN_"

// foreignVariable matches what Kubernetes sets in every pod for a Service named ocistern or ocistern-...: these begin
// with our prefix, and a node must start in spite of them.
var foreignVariable = regexp.MustCompile(`^OCISTERN(_[A-Z0-9_]+)?_` +
	`(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// clientVariables belong to the commands that call nodes.
func clientVariables() []string { return []string{"OCISTERN_ENDPOINTS"} }

func readEnvironment(sources Sources) ([]Value, error) {
	byName := map[string]Setting{}
	var known []string
	for _, s := range Settings() {
		byName[s.Env()] = s
		known = append(known, s.Env())
	}
	var values []Value
	for _, variable := range sources.Environ {
		name, text, _ := strings.Cut(variable, "=")
		ours := strings.HasPrefix(name, envPrefix) && !foreignVariable.MatchString(name)
		if !ours || slices.Contains(clientVariables(), name) {
			continue
		}
		setting, found := byName[name]
		if !found {
			return nil, withNearest(errdef.New(errdef.ConfigInvalid, "unknown variable %s", shown(name)), name, known)
		}
		value := Value{Setting: setting, Texts: []string{text}, Origin: name}
		if setting.List {
			value.Texts = SplitList(text)
		}
		values = append(values, value)
	}
	return values, nil
}

// SplitList splits a comma-separated list and drops empty items.
func SplitList(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}
