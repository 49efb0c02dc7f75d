package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ocistern/ocistern/internal/errdef"
)

// reader turns YAML nodes into values. It walks the nodes itself, since only they know their lines.
type reader struct {
	where func(*yaml.Node) string // the origin of a node
}

// parseYAML reads one document; nil for an empty one.
func parseYAML(name string, content []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document, more yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, errdef.Wrap(errdef.ConfigInvalid, err, "%s is not YAML", name)
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errdef.New(errdef.ConfigInvalid, "%s goes on after its first document", name).
			WithRemedy("keep one document")
	}
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	return root, nil
}

// parseLine is parseYAML for a flag or a variable. It does not say what the parser says, which may repeat a secret.
func parseLine(origin, text string) (*yaml.Node, error) {
	node, err := parseYAML(origin, []byte(text))
	switch {
	case err != nil:
		return nil, errdef.New(errdef.ConfigInvalid, "%s is not YAML", origin).
			WithRemedy(`one mapping is {key: value, other-key: "*"}, several are [{...}, {...}]`)
	case node == nil:
		node = &yaml.Node{}
	}
	return node, nil
}

func (r reader) wrong(node *yaml.Node, format string, args ...any) *errdef.Error {
	return errdef.New(errdef.ConfigInvalid, "%s: "+format, append([]any{r.where(node)}, args...)...)
}

// value reads what a setting is given. Its origin is that of key.
func (r reader) value(s Setting, key, node *yaml.Node) (Value, error) {
	v := Value{Setting: s, Origin: r.where(key)}
	var err error
	if s.structure != nil {
		v.Items, err = r.items(s, node)
	} else {
		v.Texts, err = r.texts(s, node)
	}
	return v, err
}

func (r reader) texts(s Setting, node *yaml.Node) ([]string, error) {
	if !s.List {
		text, err := r.scalar(s.Key, node)
		return []string{text}, err
	}
	return list(r, s, node, func(item *yaml.Node) (string, error) { return r.scalar(s.Key, item) })
}

func (r reader) items(s Setting, node *yaml.Node) ([]Item, error) {
	return list(r, s, node, func(item *yaml.Node) (Item, error) { return r.item(s, item) })
}

func list[T any](r reader, s Setting, node *yaml.Node, read func(*yaml.Node) (T, error)) ([]T, error) {
	if node.Kind != yaml.SequenceNode {
		return nil, r.wrong(node, "%s is not a list", s.Key).WithRemedy("write one item a line, after a dash, or [a, b]")
	}
	var items []T
	for _, item := range node.Content {
		one, err := read(item)
		if err != nil {
			return nil, err
		}
		items = append(items, one)
	}
	return items, nil
}

func (r reader) scalar(key string, node *yaml.Node) (string, error) {
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
		return "", r.wrong(node, "%s has no plain value here", key).WithRemedy("write a text or a number")
	}
	return node.Value, nil
}

// item reads one mapping of a structured list.
func (r reader) item(s Setting, node *yaml.Node) (Item, error) {
	if node.Kind != yaml.MappingNode {
		return Item{}, r.wrong(node, "an item of %s is not a mapping", s.Key).
			WithRemedy("write key: value lines; keys are %s", strings.Join(s.columnNames(), ", "))
	}
	item := Item{Origin: r.where(node)}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		column, found := s.column(key.Value)
		switch {
		case key.Kind != yaml.ScalarNode || !found:
			return Item{}, withNearest(r.wrong(key, "unknown key %q", shown(s.Key+"."+key.Value)), key.Value, s.columnNames())
		case seen[key.Value]:
			return Item{}, r.wrong(key, "%s was given already", column.Key).WithRemedy("keep one of them")
		}
		seen[key.Value] = true
		v, err := r.value(column, key, node.Content[i+1])
		if err != nil {
			return Item{}, err
		}
		item.Fields = append(item.Fields, v)
	}
	return item, nil
}

// itemOf reads an item that is written in one line: KEY=VALUE where the list has such a form, else a YAML mapping. Errors
// do not repeat the text, which may hold a secret.
func itemOf(s Setting, text, origin string) (Item, error) {
	r := reader{func(*yaml.Node) string { return origin }}
	if strings.HasPrefix(strings.TrimSpace(text), "{") || s.structure.short[0] == "" {
		node, err := parseLine(origin, text)
		if err != nil {
			return Item{}, err
		}
		return r.item(s, node)
	}
	item := Item{Origin: origin}
	first, second, _ := strings.Cut(text, "=")
	for i, part := range []string{first, second} {
		if part == "" {
			return Item{}, item.wrong("an item of %s has no %s", s.Key, s.structure.short[i]).WithRemedy("%s", s.example())
		}
		column, _ := s.column(s.structure.short[i])
		item.Fields = append(item.Fields, Value{Setting: column, Texts: []string{part}, Origin: origin})
	}
	return item, nil
}

// itemsOf reads one text an item. Where there are several, origins count them.
func itemsOf(s Setting, texts []string, origin string) ([]Item, error) {
	var items []Item
	for i, text := range texts {
		from := origin
		if len(texts) > 1 {
			from = fmt.Sprintf("%s, item %d", origin, i+1)
		}
		item, err := itemOf(s, text, from)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}
