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
		printed = append(printed, row{Key: v.Setting.Key, Value: plain(v), Origin: v.Origin})
	}
	return printed
}

// plain returns a text, a list of texts, or a list of mappings.
func plain(v Value) any {
	switch {
	case v.Setting.structure != nil:
		items := []map[string]any{}
		for _, item := range v.Items {
			fields := map[string]any{}
			for _, f := range item.Fields {
				fields[strings.TrimPrefix(f.Setting.Key, v.Setting.Key+".")] = plain(f)
			}
			items = append(items, fields)
		}
		return items
	case v.Setting.List:
		return append([]string{}, v.Texts...)
	}
	return v.Texts[0]
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
	for _, text := range v.Texts {
		list.Content = append(list.Content, scalar(text))
	}
	for _, item := range v.Items {
		mapping := &yaml.Node{Kind: yaml.MappingNode}
		for _, f := range item.Fields {
			mapping.Content = append(mapping.Content, scalar(strings.TrimPrefix(f.Setting.Key, v.Setting.Key+".")), valueNode(f))
		}
		list.Content = append(list.Content, mapping)
	}
	if len(list.Content) == 0 {
		list.Style = yaml.FlowStyle
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
