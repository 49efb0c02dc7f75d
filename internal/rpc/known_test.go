package rpc

import (
	"context"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/errdef"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
)

// knownAs knows every name that it can read, with the name itself as the media type, and makes answers of a size.
type knownAs struct{ padding string }

func (k knownAs) ResolveKnown(
	_ context.Context, principal registry.Principal, target registry.Target, names []reference.Reference,
) ([]registry.Resolved, error) {
	if target.Level != registry.LevelLinearizable || target.MinIndex != 7 || principal.Tenant != "t" {
		return nil, errdef.New(errdef.UsageInvalid, "%+v of %+v", target, principal)
	}
	answers := make([]registry.Resolved, len(names))
	for i, name := range names {
		if name != (reference.Reference{}) {
			answers[i].Descriptor = ocispec.Descriptor{
				MediaType: name.String(), Digest: digest.FromString("x"), Annotations: map[string]string{"padding": k.padding},
			}
		}
	}
	return answers, nil
}

// resolveKnown returns the media types of the answers.
func resolveKnown(t *testing.T, known registry.Known, target *registryv1.Target, references ...string) ([]string, error) {
	t.Helper()
	server := NewRegistryServer(RegistryConfig{
		Registry: &scripted{}, Known: known, Status: noStatus{}, Ready: func() error { return nil }, Logger: quiet(),
	})
	request := &registryv1.ResolveKnownRequest{Target: target}
	for _, text := range references {
		request.Names = append(request.Names, &registryv1.ResolveKnownRequest_Name{Repository: "a/b", Reference: text})
	}
	response, err := registryv1.NewRegistryServiceClient(dial(t, serve(t, server))).ResolveKnown(t.Context(), request)
	var names []string
	for _, answer := range response.GetAnswers() {
		names = append(names, answer.GetDescriptor_().GetMediaType())
	}
	return names, errdef.FromGRPC(err)
}

func TestResolveKnownOverGRPC(t *testing.T) {
	level := registryv1.ReadLevel_READ_LEVEL_LINEARIZABLE
	target := &registryv1.Target{Tenant: "t", MinIndex: 7, Level: level}
	dgst := digest.FromString("x").String()
	got, err := resolveKnown(t, knownAs{}, target, "v1", "not a tag", dgst, "")
	if want := "a/b:v1||a/b@" + dgst + "|"; err != nil || strings.Join(got, "|") != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	for name, wrong := range map[string]*registryv1.Target{
		"level": {Tenant: "t", MinIndex: 7, Level: 99}, "tenant": {Tenant: "T", MinIndex: 7, Level: level},
	} {
		if _, err := resolveKnown(t, knownAs{}, wrong, "v1"); errdef.ReasonOf(err) == "" || errdef.ReasonOf(err) == errdef.UsageInvalid {
			t.Errorf("wrong %s: %v", name, err)
		}
	}
}

// What does not fit into one answer is left out, to be asked for alone; what fits is told.
func TestResolveKnownStaysInBounds(t *testing.T) {
	target := &registryv1.Target{Tenant: "t", MinIndex: 7, Level: registryv1.ReadLevel_READ_LEVEL_LINEARIZABLE}
	got, err := resolveKnown(t, knownAs{strings.Repeat("x", MaxMessageBytes/5)}, target, "v1", "v2", "v3", "v4", "v5", "v6")
	if want := "a/b:v1|a/b:v2||||"; err != nil || strings.Join(got, "|") != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}
