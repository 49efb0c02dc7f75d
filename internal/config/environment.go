package config

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

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
		value, err := variableValue(setting, name, text)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	return values, nil
}

// variableValue reads the text of a variable: lists are separated by commas, structured ones are a YAML sequence, unless
// their items have a short form.
func variableValue(s Setting, name, text string) (v Value, err error) {
	v = Value{Setting: s, Origin: name}
	switch {
	case s.structure != nil && strings.TrimSpace(text) == "":
	case s.structure != nil && (s.structure.short[0] == "" || strings.HasPrefix(strings.TrimSpace(text), "[")):
		var node *yaml.Node
		if node, err = parseLine(name, text); err == nil {
			v.Items, err = reader{func(*yaml.Node) string { return name }}.items(s, node)
		}
	case s.structure != nil:
		v.Items, err = itemsOf(s, SplitList(text), name)
	case s.List:
		v.Texts = SplitList(text)
	default:
		v.Texts = []string{text}
	}
	return v, err
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
