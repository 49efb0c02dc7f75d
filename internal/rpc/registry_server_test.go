package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/ocistern/ocistern/internal/errdef"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
	"github.com/ocistern/ocistern/internal/registry/registrytest"
)

func TestRegistryOverGRPC(t *testing.T) { registrytest.Run(t, over) }

// scripted answers every call alike.
type scripted struct {
	registry.Registry
	err     error
	content io.Reader
	size    int64
	seen    func(context.Context, registry.Principal)
}

func (s *scripted) Resolve(ctx context.Context, p registry.Principal, _ registry.Target) (registry.Resolved, error) {
	if s.seen != nil {
		s.seen(ctx, p)
	}
	return registry.Resolved{}, s.err
}

func (s *scripted) FetchBlob(
	_ context.Context, _ registry.Principal, target registry.Target, _ int64,
) (*registry.Blob, error) {
	desc := ocispec.Descriptor{Digest: target.Reference.Digest, Size: s.size}
	return &registry.Blob{Descriptor: desc, Content: io.NopCloser(s.content)}, nil
}

func (s *scripted) FetchManifest(context.Context, registry.Principal, registry.Target) (registry.Manifest, error) {
	panic("planted")
}

func (s *scripted) Referrers(
	context.Context, registry.Principal, registry.Target, string,
) (registry.Referrers, error) {
	huge := strings.Repeat("x", MaxMessageBytes)
	return registry.Referrers{Descriptors: []ocispec.Descriptor{{MediaType: huge}}}, nil
}

// Every reason crosses, as the answer of a call and in the middle of a stream.
func TestEveryReasonCrosses(t *testing.T) {
	s := &scripted{size: 10}
	r := over(t, s)
	blobTarget := registrytest.Digest("a/b", digest.FromString("x"))
	for _, reason := range errdef.Reasons() {
		s.err = errdef.New(reason, "planted").WithRemedy("do this")
		s.content = io.MultiReader(strings.NewReader("12345"), failingReader{s.err})
		_, unary := r.Resolve(t.Context(), registrytest.Caller(), registrytest.Tag("a/b", "c"))
		blob, err := r.FetchBlob(t.Context(), registrytest.Caller(), blobTarget, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, streamed := io.ReadAll(blob.Content)
		for _, got := range []error{unary, streamed} {
			if errdef.ReasonOf(got) != reason || !errors.Is(got, s.err) && !strings.Contains(got.Error(), "do this") {
				t.Errorf("%s came back as %v (%s)", reason, got, errdef.ReasonOf(got))
			}
		}
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

func TestPanicIsAnInternalError(t *testing.T) {
	r := over(t, &scripted{})
	_, err := r.FetchManifest(t.Context(), registrytest.Caller(), registrytest.Tag("a/b", "c"))
	if errdef.ReasonOf(err) != errdef.Internal || strings.Contains(err.Error(), "planted") {
		t.Errorf("a panic came back as %v", err)
	}
	if _, err := r.Resolve(t.Context(), registrytest.Caller(), registrytest.Tag("a/b", "c")); err != nil {
		t.Errorf("the server does not answer after a panic: %v", err)
	}
}

func TestOversizedAnswerIsTyped(t *testing.T) {
	r := over(t, &scripted{})
	target := registrytest.Digest("a/b", digest.FromString("x"))
	_, err := r.Referrers(t.Context(), registrytest.Caller(), target, "")
	if errdef.ReasonOf(err) != errdef.ManifestTooLarge {
		t.Errorf("oversized referrers list: %v", err)
	}
}

// A body that ends early is never taken for whole; one of many chunks arrives whole.
func TestBlobBodies(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), chunkBytes/4)
	for _, c := range []struct {
		sent   int
		reason errdef.Reason
	}{{len(body), ""}, {len(body) - 1, errdef.SizeMismatch}, {0, errdef.SizeMismatch}} {
		r := over(t, &scripted{content: bytes.NewReader(body[:c.sent]), size: int64(len(body))})
		target := registrytest.Digest("a/b", digest.FromBytes(body))
		blob, err := r.FetchBlob(t.Context(), registrytest.Caller(), target, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(blob.Content)
		if errdef.ReasonOf(err) != c.reason || err == nil && !bytes.Equal(got, body) {
			t.Errorf("%d of %d bytes sent: read %d, %v; want reason %q", c.sent, len(body), len(got), err, c.reason)
		}
	}
}

// The caller's deadline and tenant reach the use case; without them there are defaults.
func TestCallerReachesTheUseCase(t *testing.T) {
	type seen struct {
		tenant  string
		bounded bool
	}
	var got seen
	s := &scripted{seen: func(ctx context.Context, p registry.Principal) {
		_, bounded := ctx.Deadline()
		got = seen{string(p.Tenant), bounded}
		if p.Name != anonymous {
			t.Errorf("principal %q", p.Name)
		}
	}}
	r := over(t, s)
	for sent, want := range map[reference.Tenant]seen{"": {"default", true}, "other": {"other", true}} {
		_, err := r.Resolve(t.Context(), registry.Principal{Tenant: sent}, registrytest.Tag("a/b", "c"))
		if err != nil || got != want {
			t.Errorf("the use case saw %+v, %v, want %+v", got, err, want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	_, err := r.Resolve(ctx, registrytest.Caller(), registrytest.Tag("a/b", "c"))
	if errdef.ReasonOf(err) != errdef.Deadline || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("past the deadline: %v", err)
	}
}

func TestBadInput(t *testing.T) {
	f := registrytest.New(t)
	client := over(t, f.Cache).(remote).RegistryServiceClient
	ctx := t.Context()
	for _, c := range []struct {
		target *registryv1.Target
		reason errdef.Reason
	}{
		{nil, errdef.NameInvalid},
		{&registryv1.Target{Repository: "a/../b", Reference: "v1"}, errdef.NameInvalid},
		{&registryv1.Target{Repository: strings.Repeat("a", 300), Reference: "v1"}, errdef.NameInvalid},
		{&registryv1.Target{Repository: "a/b", Reference: "-v1"}, errdef.TagInvalid},
		{&registryv1.Target{Repository: "a/b"}, errdef.TagInvalid},
		{&registryv1.Target{Repository: "a/b", Reference: "sha256:0"}, errdef.DigestInvalid},
		{&registryv1.Target{Repository: "a/b", Reference: "v1", Tenant: "A/B"}, errdef.NameInvalid},
	} {
		_, err := client.Resolve(ctx, &registryv1.ResolveRequest{Target: c.target})
		if errdef.ReasonOf(errdef.FromGRPC(err)) != c.reason {
			t.Errorf("%v: %v, want reason %s", c.target, err, c.reason)
		}
	}
	tagged := &registryv1.Target{Repository: "a/b", Reference: "v1"}
	_, err := client.ListReferrers(ctx, &registryv1.ListReferrersRequest{Target: tagged})
	if errdef.ReasonOf(errdef.FromGRPC(err)) != errdef.DigestInvalid {
		t.Errorf("referrers of a tag: %v", err)
	}
	_, err = client.ListTags(ctx, &registryv1.ListTagsRequest{Target: tagged, Limit: -1})
	if errdef.ReasonOf(errdef.FromGRPC(err)) != errdef.UsageInvalid {
		t.Errorf("a negative page: %v", err)
	}
	oversized := &registryv1.ListReferrersRequest{Target: tagged, ArtifactType: strings.Repeat("x", maxRequestBytes)}
	if _, err = client.ListReferrers(ctx, oversized); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("an oversized request: %v", err)
	}
}

func TestStatus(t *testing.T) {
	client := over(t, &scripted{}).(remote).RegistryServiceClient
	answer, err := client.GetStatus(t.Context(), &registryv1.GetStatusRequest{})
	if err != nil || answer.GetVersion() != "test" {
		t.Errorf("status %v, %v", answer, err)
	}
	_, err = client.GetStatus(t.Context(), &registryv1.GetStatusRequest{CatalogDigest: true})
	if errdef.ReasonOf(errdef.FromGRPC(err)) != errdef.Unsupported {
		t.Errorf("status with a digest: %v", err)
	}
}

// Health follows readiness, also for who watches it.
func TestHealth(t *testing.T) {
	var ready atomic.Bool
	server := grpc.NewServer()
	healthv1.RegisterHealthServer(server, &health{interval: time.Millisecond, ready: func() error {
		if !ready.Load() {
			return errdef.New(errdef.NotReady, "planted")
		}
		return nil
	}})
	client := healthv1.NewHealthClient(dial(t, serve(t, server)))
	stream, err := client.Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []healthv1.HealthCheckResponse_ServingStatus{
		healthv1.HealthCheckResponse_NOT_SERVING, healthv1.HealthCheckResponse_SERVING,
		healthv1.HealthCheckResponse_NOT_SERVING,
	} {
		ready.Store(want == healthv1.HealthCheckResponse_SERVING)
		watched, err := stream.Recv()
		if err != nil || watched.GetStatus() != want {
			t.Fatalf("watched %v, %v, want %v", watched, err, want)
		}
		for _, service := range []string{"", registryv1.RegistryService_ServiceDesc.ServiceName} {
			checked, err := client.Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
			if err != nil || checked.GetStatus() != want {
				t.Errorf("health of %q is %v, %v, want %v", service, checked, err, want)
			}
		}
	}
	_, err = client.Check(t.Context(), &healthv1.HealthCheckRequest{Service: "nope"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("health of an unknown service: %v", err)
	}
}

func TestReflectionListsTheService(t *testing.T) {
	server := NewRegistryServer(RegistryConfig{
		Registry: &scripted{}, Status: noStatus{}, Ready: func() error { return nil }, Logger: quiet(),
	})
	stream, err := reflectionv1.NewServerReflectionClient(dial(t, serve(t, server))).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
	}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil || !strings.Contains(answer.String(), registryv1.RegistryService_ServiceDesc.ServiceName) {
		t.Errorf("reflection: %v, %v", answer, err)
	}
}

// Whatever a caller sends as a target is refused with a reason or read as it was meant.
func FuzzParseTarget(f *testing.F) {
	f.Add("", "a/b", "v1")
	f.Add("t", "../x", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
	f.Fuzz(func(t *testing.T, tenant, repository, ref string) {
		message := &registryv1.Target{Tenant: tenant, Repository: repository, Reference: ref}
		for _, parse := range []func(*registryv1.Target) (registry.Principal, registry.Target, error){
			parseTarget, parseDigestTarget,
		} {
			principal, target, err := parse(message)
			if err != nil {
				if errdef.ReasonOf(err) == errdef.Internal {
					t.Fatalf("untyped error %v", err)
				}
				continue
			}
			if principal.Tenant == "" || string(target.Reference.Repository) != repository {
				t.Fatalf("%v was read as %v of %v", message, target, principal)
			}
			if got := string(target.Reference.Tag) + target.Reference.Digest.String(); got != ref {
				t.Fatalf("%v was read as %q", message, got)
			}
		}
	})
}
