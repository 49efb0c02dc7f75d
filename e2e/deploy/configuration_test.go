package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/ocistern/ocistern/internal/config"
)

// The node accepts the configuration that the ConfigMap gives it, together with the pod's environment.
func TestConfigMapIsAConfiguration(t *testing.T) {
	m := read(t)
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(m.configMap.Data["config.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	environment := []string{}
	for _, variable := range m.statefulSet.Spec.Template.Spec.Containers[0].Env {
		value := variable.Value
		if variable.ValueFrom != nil {
			value = "ocistern-0"
		}
		environment = append(environment, variable.Name+"="+regexp.MustCompile(`\$\(.*?\)`).ReplaceAllString(value, "ocistern-0"))
	}
	loaded, _, err := config.Load(config.Sources{File: file, Environ: environment})
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Cluster.Expect != int(*m.statefulSet.Spec.Replicas) || loaded.DataDir != "/data" ||
		loaded.AdvertiseHost != "ocistern-0.ocistern-peers" || len(loaded.Cluster.Join) != 3 || len(loaded.Upstreams) == 0 {
		t.Errorf("the pod runs with %+v", loaded)
	}
}

// The node accepts the environment that the compose file gives each service.
func TestComposeEnvironmentIsAConfiguration(t *testing.T) {
	text, err := os.ReadFile(composeFile)
	if err != nil {
		t.Fatal(err)
	}
	var compose struct {
		Services map[string]struct{ Environment map[string]string }
	}
	if err := yaml.Unmarshal(text, &compose); err != nil {
		t.Fatal(err)
	}
	if len(compose.Services) != 3 {
		t.Fatalf("%d services", len(compose.Services))
	}
	for name, service := range compose.Services {
		environment := []string{"OCISTERN_DATA_DIR=/data"} // of the image
		for key, value := range service.Environment {
			value = regexp.MustCompile(`\$\{.*:-(.*)\}`).ReplaceAllString(value, "$1")
			environment = append(environment, key+"="+value)
		}
		loaded, _, err := config.Load(config.Sources{Environ: environment})
		if err != nil || loaded.Name != name || loaded.AdvertiseHost != name || len(loaded.Upstreams) == 0 {
			t.Errorf("%s runs with %+v, %v", name, loaded, err)
		}
	}
}
