package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ocistern/ocistern/internal/errdef"
)

// MaxFileBytes bounds a configuration file.
const MaxFileBytes = 1 << 20

func readFile(sources Sources) ([]Value, error) {
	if sources.File == "" {
		return nil, nil
	}
	file, err := os.Open(sources.File)
	if err != nil {
		return nil, errdef.Wrap(errdef.ConfigInvalid, err, "cannot read the configuration file").
			WithRemedy("name a readable YAML file with --config")
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, MaxFileBytes+1))
	if err != nil {
		return nil, errdef.Wrap(errdef.ConfigInvalid, err, "cannot read the configuration file")
	}
	if len(content) > MaxFileBytes {
		return nil, errdef.New(errdef.ConfigInvalid, "%s is larger than %d bytes", sources.File, MaxFileBytes).
			WithRemedy("is this the configuration file?")
	}
	return parseFile(filepath.Base(sources.File), content)
}

// parseFile reads one YAML document. It walks the nodes itself, since only they know their lines.
func parseFile(name string, content []byte) ([]Value, error) {
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
	f := &fileReader{name: name, lines: map[string]int{}}
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	if err := f.section("", root); err != nil {
		return nil, err
	}
	return f.values, nil
}

// fileReader collects the values of one file.
type fileReader struct {
	name   string
	values []Value
	lines  map[string]int // of the keys read so far
}

func (f *fileReader) wrong(node *yaml.Node, format string, args ...any) *errdef.Error {
	return errdef.New(errdef.ConfigInvalid, "%s:%d: "+format, append([]any{f.name, node.Line}, args...)...)
}

// section reads a mapping whose keys, after path, are settings or further sections.
func (f *fileReader) section(path string, node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return f.wrong(node, "%s is not a mapping", described(path)).WithRemedy("write key: value lines")
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		full := strings.TrimPrefix(path+"."+key.Value, ".")
		setting, isSetting := settingOf(full)
		switch {
		case key.Kind != yaml.ScalarNode || (!isSetting && !isSection(full)):
			return withNearest(f.wrong(key, "unknown key %q", shown(full)), full, knownKeys())
		case f.lines[full] != 0:
			return f.wrong(key, "%s was given in line %d already", full, f.lines[full]).WithRemedy("keep one of them")
		}
		f.lines[full] = key.Line
		if !isSetting {
			if err := f.section(full, value); err != nil {
				return err
			}
			continue
		}
		texts, err := f.texts(setting, value)
		if err != nil {
			return err
		}
		f.values = append(f.values, Value{Setting: setting, Texts: texts, Origin: fmt.Sprintf("%s:%d", f.name, key.Line)})
	}
	return nil
}

func (f *fileReader) texts(s Setting, node *yaml.Node) ([]string, error) {
	if !s.List {
		text, err := f.scalar(s.Key, node)
		return []string{text}, err
	}
	if node.Kind != yaml.SequenceNode {
		return nil, f.wrong(node, "%s is not a list", s.Key).WithRemedy("write one item a line, after a dash")
	}
	var texts []string
	for _, item := range node.Content {
		read := f.scalar
		if s.Key == "upstreams" {
			read = f.upstream
		}
		text, err := read(s.Key, item)
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}

func (f *fileReader) scalar(key string, node *yaml.Node) (string, error) {
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
		return "", f.wrong(node, "%s has no plain value here", key).WithRemedy("write a text or a number")
	}
	return node.Value, nil
}

// upstream reads {name, url} into the form that flags have.
func (f *fileReader) upstream(key string, node *yaml.Node) (string, error) {
	fields := map[string]string{}
	if node.Kind != yaml.MappingNode {
		return "", f.wrong(node, "an item of %s is not a mapping", key).WithRemedy("write name: and url:")
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name := node.Content[i].Value
		if name != "name" && name != "url" {
			wrong := f.wrong(node.Content[i], "unknown key %q", shown(key+"."+name))
			return "", withNearest(wrong, name, []string{"name", "url"})
		}
		text, err := f.scalar(key+"."+name, node.Content[i+1])
		if err != nil {
			return "", err
		}
		if _, twice := fields[name]; twice {
			return "", f.wrong(node.Content[i], "%s.%s was given already", key, name).WithRemedy("keep one of them")
		}
		fields[name] = text
	}
	if len(fields) != 2 {
		return "", f.wrong(node, "an item of %s is not complete", key).WithRemedy("write name: and url:")
	}
	return fields["name"] + "=" + fields["url"], nil
}

func described(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}

func isSection(path string) bool {
	for _, s := range Settings() {
		if strings.HasPrefix(s.Key, path+".") {
			return true
		}
	}
	return false
}
