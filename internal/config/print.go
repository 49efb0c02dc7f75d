package config

import (
	"encoding/json"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ocistern/ocistern/internal/errdef"
)

// Print writes effective values in a format, "yaml" or "json". YAML is a file that Load accepts again, with the origin
// of each value behind it; JSON is a list of {key, value, origin}.
func Print(w io.Writer, format string, values []Value) error {
	switch format {
	case "yaml":
		encoder := yaml.NewEncoder(w)
		encoder.SetIndent(2)
		if err := encoder.Encode(document(values)); err != nil {
			return errdef.Wrap(errdef.Internal, err, "cannot print the configuration")
		}
		return nil
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(rows(values)); err != nil {
			return errdef.Wrap(errdef.Internal, err, "cannot print the configuration")
		}
		return nil
	}
	return errdef.New(errdef.UsageInvalid, "unknown format %q", shown(format)).WithRemedy("yaml or json")
}

type row struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`
	Origin string `json:"origin"`
}

func rows(values []Value) []row {
	var printed []row
	for _, v := range values {
		r := row{Key: v.Setting.Key, Origin: v.Origin}
		if v.Setting.List {
			r.Value = append([]string{}, v.Texts...)
		} else {
			r.Value = v.Texts[0]
		}
		printed = append(printed, r)
	}
	return printed
}

func document(values []Value) *yaml.Node {
	root := &yaml.Node{Kind: yaml.MappingNode}
	sections := map[string]*yaml.Node{"": root}
	for _, v := range values {
		path, name, found := strings.Cut(v.Setting.Key, ".")
		if !found {
			path, name = "", v.Setting.Key
		}
		if sections[path] == nil {
			sections[path] = &yaml.Node{Kind: yaml.MappingNode}
			root.Content = append(root.Content, scalar(path), sections[path])
		}
		key, value := scalar(name), valueNode(v)
		value.LineComment = v.Origin
		if value.Kind == yaml.SequenceNode && len(value.Content) > 0 {
			key.LineComment, value.LineComment = v.Origin, ""
		}
		sections[path].Content = append(sections[path].Content, key, value)
	}
	return root
}

func valueNode(v Value) *yaml.Node {
	if !v.Setting.List {
		return scalar(v.Texts[0])
	}
	list := &yaml.Node{Kind: yaml.SequenceNode}
	if len(v.Texts) == 0 {
		list.Style = yaml.FlowStyle
	}
	for _, text := range v.Texts {
		item := scalar(text)
		if v.Setting.Key == "upstreams" {
			name, address, _ := strings.Cut(text, "=")
			fields := []*yaml.Node{scalar("name"), scalar(name), scalar("url"), scalar(address)}
			item = &yaml.Node{Kind: yaml.MappingNode, Content: fields}
		}
		list.Content = append(list.Content, item)
	}
	return list
}

// scalar makes a node that the encoder quotes where needed. A number would be quoted too, if it were called a text.
func scalar(text string) *yaml.Node {
	tag := "!!str"
	if _, err := strconv.Atoi(text); err == nil {
		tag = "!!int"
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text}
}
