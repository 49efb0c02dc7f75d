package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// manifests are the objects of deploy/kubernetes, decoded strictly.
type manifests struct {
	statefulSet *appsv1.StatefulSet
	services    []*corev1.Service
	configMap   *corev1.ConfigMap
	disruption  *policyv1.PodDisruptionBudget
	account     *corev1.ServiceAccount
}

func (m *manifests) decode(document []byte) error {
	var kind struct{ Kind string }
	if err := yaml.Unmarshal(document, &kind); err != nil {
		return err
	}
	var object any
	switch kind.Kind {
	case "StatefulSet":
		m.statefulSet = &appsv1.StatefulSet{}
		object = m.statefulSet
	case "Service":
		m.services = append(m.services, &corev1.Service{})
		object = m.services[len(m.services)-1]
	case "ConfigMap":
		m.configMap = &corev1.ConfigMap{}
		object = m.configMap
	case "PodDisruptionBudget":
		m.disruption = &policyv1.PodDisruptionBudget{}
		object = m.disruption
	case "ServiceAccount":
		m.account = &corev1.ServiceAccount{}
		object = m.account
	default:
		return fmt.Errorf("no type is known for kind %q", kind.Kind)
	}
	converted, err := yaml.YAMLToJSONStrict(document) // refuses a key that stands twice
	if err != nil {
		return err
	}
	// Case-sensitive and strict, as the API server decodes with strict field validation.
	unknown, err := json.UnmarshalStrict(converted, object)
	return errors.Join(append(unknown, err)...)
}

func read(t *testing.T) *manifests {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "kubernetes", "ocistern.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	m := &manifests{}
	for i, document := range bytes.Split(text, []byte("\n---\n")) {
		if err := m.decode(document); err != nil {
			t.Fatalf("document %d: %v\n%s", i+1, err, document)
		}
	}
	return m
}

func TestManifestsFitTheKubernetesTypes(t *testing.T) {
	m := read(t)
	if m.statefulSet == nil || len(m.services) != 2 || m.configMap == nil || m.disruption == nil || m.account == nil {
		t.Fatalf("objects are missing: %+v", m)
	}
}

// Strict decoding finds a field that Kubernetes does not know, or one in the wrong place.
func TestStrictDecodingBites(t *testing.T) {
	for name, planted := range map[string]string{
		"unknown field":   "kind: Service\nspec: {clusterIp: None}",
		"misplaced field": "kind: StatefulSet\nspec: {template: {spec: {readinessProbe: {}}}}",
		"unknown kind":    "kind: StatefulSets",
		"wrong type":      "kind: StatefulSet\nspec: {replicas: three}",
	} {
		if err := new(manifests).decode([]byte(planted)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestStatefulSetHoldsTogether(t *testing.T) {
	m := read(t)
	spec, pod := m.statefulSet.Spec, m.statefulSet.Spec.Template
	ports, volumes := map[string]bool{}, map[string]bool{}
	for _, port := range pod.Spec.Containers[0].Ports {
		ports[port.Name] = true
	}
	for _, volume := range pod.Spec.Volumes {
		volumes[volume.Name] = true
	}
	for _, claim := range spec.VolumeClaimTemplates {
		volumes[claim.Name] = true
	}
	for _, mount := range pod.Spec.Containers[0].VolumeMounts {
		if !volumes[mount.Name] {
			t.Errorf("no volume %q", mount.Name)
		}
	}
	names := []string{}
	for _, service := range m.services {
		names = append(names, service.Name)
		for key, value := range service.Spec.Selector {
			if pod.Labels[key] != value {
				t.Errorf("service %s selects %s=%s, which no pod has", service.Name, key, value)
			}
		}
		for _, port := range service.Spec.Ports {
			if !ports[port.TargetPort.String()] {
				t.Errorf("service %s: the pod has no port %q", service.Name, port.TargetPort.String())
			}
		}
	}
	if !slices.Contains(names, spec.ServiceName) {
		t.Errorf("serviceName %q names none of %v", spec.ServiceName, names)
	}
	for key, value := range m.disruption.Spec.Selector.MatchLabels {
		if pod.Labels[key] != value {
			t.Errorf("the disruption budget selects no pod: %s=%s", key, value)
		}
	}
}

// What keeps an operator out of bed-time trouble (plan, section 7): see the comments of the manifest.
func TestStatefulSetKeepsTheTrapsClosed(t *testing.T) {
	m := read(t)
	container := m.statefulSet.Spec.Template.Spec.Containers[0]
	if m.statefulSet.Spec.PodManagementPolicy != appsv1.ParallelPodManagement {
		t.Error("pods must start in parallel: the first would wait for a cluster that needs the others")
	}
	if path := container.LivenessProbe.HTTPGet.Path; path != "/livez" {
		t.Errorf("liveness asks %s: it must never depend on the quorum", path)
	}
	if path := container.ReadinessProbe.HTTPGet.Path; path != "/readyz" {
		t.Errorf("readiness asks %s", path)
	}
	for _, service := range m.services {
		if headless := service.Spec.ClusterIP == corev1.ClusterIPNone; headless != service.Spec.PublishNotReadyAddresses {
			t.Errorf("service %s: peers must be found before they are ready, callers must not", service.Name)
		}
	}
	security := container.SecurityContext
	if !*security.ReadOnlyRootFilesystem || *security.AllowPrivilegeEscalation || !*m.statefulSet.Spec.Template.Spec.SecurityContext.RunAsNonRoot {
		t.Error("the container must run as non-root on a read-only root without escalation")
	}
	if config := m.configMap.Data["config.yaml"]; !strings.Contains(config, "expect: 3") || *m.statefulSet.Spec.Replicas != 3 {
		t.Error("replicas and cluster.expect must agree")
	}
}
