package config

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
)

// What is printed as YAML is read back as the same configuration.
func TestPrintedYAMLIsAConfiguration(t *testing.T) {
	for _, file := range []string{whole, "name: \"1\"\n", "name: a\ncluster: {join: []}\n"} {
		want, values, err := Load(Sources{File: writeFile(t, file)})
		if err != nil {
			t.Fatal(err)
		}
		var printed bytes.Buffer
		if err := Print(&printed, "yaml", values); err != nil {
			t.Fatal(err)
		}
		got, _, err := Load(Sources{File: writeFile(t, printed.String())})
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s\ngot  %+v, %v\nwant %+v", printed.String(), got, err, want)
		}
		origins := bytes.Contains(printed.Bytes(), []byte("# config.yaml:"))
		if file != whole {
			origins = origins && bytes.Contains(printed.Bytes(), []byte("# default"))
		}
		if !origins {
			t.Errorf("origins are missing:\n%s", printed.String())
		}
	}
}

func TestPrintJSON(t *testing.T) {
	_, values, err := Load(Sources{Flags: map[string][]string{"name": {"n1"}}})
	if err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	if err := Print(&printed, "json", values); err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal(printed.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if want := (map[string]any{"key": "name", "value": "n1", "origin": "--name"}); !reflect.DeepEqual(got[0], want) {
		t.Errorf("got %v, want %v", got[0], want)
	}
	if err := Print(&printed, "xml", values); err == nil {
		t.Error("format xml was accepted")
	}
}
