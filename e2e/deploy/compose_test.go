package deploy

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"oras.land/oras-go/v2/registry/remote"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/e2e/nodes"
	"github.com/ocistern/ocistern/e2e/signed"
	"github.com/ocistern/ocistern/e2e/upstream"
)

const (
	testImage   = "ocistern:e2e"
	testProject = "ocistern-e2e"
	composeFile = "../../deploy/compose/compose.yaml"
)

// The image is built from a prebuilt binary, and the compose file's three nodes form a cluster that mirrors a registry
// of the host: an image is resolved and verified through each of them.
func TestComposeStartsThreeNodes(t *testing.T) {
	compose := engine(t)
	buildImage(t)

	registry, err := upstream.Start(upstream.Options{Software: upstream.ContainerRegistry, Everywhere: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registry.Close(); err != nil {
			t.Error(err)
		}
	})
	policy := pushSigned(t, registry)

	environment := append(os.Environ(), "OCISTERN_IMAGE="+testImage,
		fmt.Sprintf("OCISTERN_UPSTREAM=up.test=http://%s:%d", hostAddress(t), registry.Port()))
	docker := func(ctx context.Context, args ...string) (string, error) {
		args = append([]string{"-p", testProject, "-f", composeFile}, args...)
		return output(ctx, environment, append(compose, args...)...)
	}
	t.Cleanup(func() {
		if t.Failed() {
			text, err := docker(context.Background(), "logs", "--no-color", "--tail", "20")
			t.Log(text, err)
		}
		if text, err := docker(context.Background(), "down", "--volumes"); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	})
	if text, err := docker(t.Context(), "up", "--detach"); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, port := range []int{5021, 5022, 5023} {
		if err := nodes.Await(ctx, func(ctx context.Context) error { return ready(ctx, port) }); err != nil {
			t.Fatalf("node with admin port %d: %v", port, err)
		}
	}
	registry.Ledger.Reset()
	for _, endpoint := range []string{"127.0.0.1:5011", "127.0.0.1:5012", "127.0.0.1:5013"} {
		verify(ctx, t, policy, endpoint)
	}
	if err := registry.Ledger.Repeated(); err != nil {
		t.Error(err)
	}
}

// skip skips a test that needs a container engine, and says why. Where OCISTERN_REQUIRE names the engine, as in CI on a
// machine that has one, it fails instead.
func skip(t *testing.T, format string, args ...any) {
	t.Helper()
	reason := fmt.Sprintf(format, args...)
	if slices.Contains(strings.Split(os.Getenv("OCISTERN_REQUIRE"), ","), "docker") {
		t.Fatalf("OCISTERN_REQUIRE demands what cannot run: %s", reason)
	}
	t.Skip("skipped: " + reason)
}

// engine returns the compose command of this machine, or skips the test and says why.
func engine(t *testing.T) []string {
	t.Helper()
	if testing.Short() {
		skip(t, "-short: it builds an image and starts containers")
	}
	if text, err := output(t.Context(), os.Environ(), "docker", "version"); err != nil {
		skip(t, "no docker engine answers: %v %s", err, strings.TrimSpace(text))
	}
	for _, port := range []string{"5001", "5002", "5003", "5011", "5012", "5013", "5021", "5022", "5023"} {
		listener, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			skip(t, "a port of the compose file is in use: %v", err)
		}
		listener.Close()
	}
	for _, command := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		if _, err := output(t.Context(), os.Environ(), append(command, "version")...); err == nil {
			return command
		}
	}
	skip(t, "neither `docker compose` nor `docker-compose` is installed")
	return nil
}

// buildImage builds the image as `make image` does, from a context that holds nothing but what the image does.
func buildImage(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	dist := filepath.Join(dir, "dist")
	if err := os.MkdirAll(filepath.Join(dist, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := nodes.BuildStatic(t.Context(), "../..", dist); err != nil {
		t.Fatal(err)
	}
	certificates, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		skip(t, "this machine has no CA roots to put into the image: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dist, "ca-certificates.crt"), certificates, fs.FileMode(0o644)); err != nil {
		t.Fatal(err)
	}
	text, err := output(t.Context(), os.Environ(),
		"docker", "build", "--target", "prebuilt", "--tag", testImage, "--file", "../../Dockerfile", dir)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	t.Cleanup(func() {
		if text, err := output(context.Background(), os.Environ(), "docker", "image", "rm", testImage); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	})
}

// hostAddress returns an address of this machine that containers reach, too.
func hostAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.To4() != nil && network.IP.IsGlobalUnicast() {
			return network.IP.String()
		}
	}
	skip(t, "this machine has no address but loopback")
	return ""
}

func output(ctx context.Context, environment []string, command ...string) (string, error) {
	run := exec.CommandContext(ctx, command[0], command[1:]...)
	run.Env = environment
	text, err := run.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w", strings.Join(command, " "), err)
	}
	return string(text), err
}

func ready(ctx context.Context, port int) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/readyz", port), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("readyz answers %s", response.Status)
	}
	return nil
}

func pushSigned(t *testing.T, registry *upstream.Registry) *signed.Verifier {
	t.Helper()
	target, err := remote.NewRepository(registry.Host() + "/demo/app")
	if err != nil {
		t.Fatal(err)
	}
	target.PlainHTTP = true
	signer, err := signed.NewSigner("compose")
	if err != nil {
		t.Fatal(err)
	}
	image := signed.Image{Tag: "v1", Layers: []int{1000}, Signers: []*signed.Signer{signer}}
	if _, err := signed.Push(t.Context(), target, image); err != nil {
		t.Fatal(err)
	}
	policy, err := signed.NewVerifier(signer)
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

func verify(ctx context.Context, t *testing.T, policy *signed.Verifier, endpoint string) {
	t.Helper()
	session, err := client.New([]string{endpoint})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	repository, err := session.Repository("up.test/demo/app")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Verify(ctx, repository, "up.test/demo/app:v1"); err != nil {
		t.Errorf("through %s: %v", endpoint, err)
	}
}
