package config

import (
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

// parseFile reads the content of a file.
func parseFile(name string, content []byte) ([]Value, error) {
	root, err := parseYAML(name, content)
	if root == nil || err != nil {
		return nil, err
	}
	f := &fileReader{lines: map[string]int{}}
	f.where = func(node *yaml.Node) string { return fmt.Sprintf("%s:%d", name, node.Line) }
	if err := f.section("", root); err != nil {
		return nil, err
	}
	return f.values, nil
}

// fileReader collects the values of one file.
type fileReader struct {
	reader
	values []Value
	lines  map[string]int // of the keys read so far
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
		read, err := f.value(setting, key, value)
		if err != nil {
			return err
		}
		f.values = append(f.values, read)
	}
	return nil
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
