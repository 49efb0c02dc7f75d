package rpc

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
)

// defaultTags is the page of a caller that sets no limit.
const defaultTags = 1000

// anonymous is every caller's name until callers are authenticated.
const anonymous = "anonymous"

// parseTarget reads a target that names a tag or a digest.
func parseTarget(message *registryv1.Target) (registry.Principal, registry.Target, error) {
	principal, target, err := parseRepositoryTarget(message)
	if err != nil {
		return principal, target, err
	}
	target.Reference, err = reference.ParseTagOrDigest(target.Reference.Repository, message.GetReference())
	return principal, target, err
}

// parseDigestTarget reads a target that names a digest.
func parseDigestTarget(message *registryv1.Target) (registry.Principal, registry.Target, error) {
	principal, target, err := parseRepositoryTarget(message)
	if err != nil {
		return principal, target, err
	}
	target.Reference.Digest, err = reference.ParseDigest(message.GetReference())
	return principal, target, err
}

// parseRepositoryTarget reads a target that names a repository; its reference is not looked at.
func parseRepositoryTarget(message *registryv1.Target) (registry.Principal, registry.Target, error) {
	principal, target, err := parseLevel(message)
	if err != nil {
		return principal, target, err
	}
	repository, err := reference.ParseRepository(message.GetRepository())
	target.Reference.Repository = repository
	return principal, target, err
}

// parseLevel reads of a target who asks and how current the answer must be.
func parseLevel(message *registryv1.Target) (registry.Principal, registry.Target, error) {
	principal := registry.Principal{Name: anonymous, Tenant: reference.DefaultTenant}
	target := registry.Target{MinIndex: catalog.LogIndex(message.GetMinIndex()), MaxAge: message.GetMaxAge().AsDuration()}
	switch level := message.GetLevel(); level {
	case registryv1.ReadLevel_READ_LEVEL_UNSPECIFIED, registryv1.ReadLevel_READ_LEVEL_SESSION:
	case registryv1.ReadLevel_READ_LEVEL_LINEARIZABLE:
		target.Level = registry.LevelLinearizable
	case registryv1.ReadLevel_READ_LEVEL_BOUNDED:
		target.Level = registry.LevelBounded
	default: // to answer at a lower level than asked for would be a lie
		return principal, target, errdef.New(errdef.Unsupported, "read level %d is not known here", level).
			WithRemedy("update the nodes before their clients")
	}
	if message.GetTenant() != "" {
		tenant, err := reference.ParseTenant(message.GetTenant())
		if err != nil {
			return principal, target, err
		}
		principal.Tenant = tenant
	}
	return principal, target, nil
}

// parseKnown reads names of which each is for itself: one that is not valid becomes empty, which nothing is known by.
func parseKnown(messages []*registryv1.ResolveKnownRequest_Name) []reference.Reference {
	names := make([]reference.Reference, len(messages))
	for i, message := range messages {
		repository, err := reference.ParseRepository(message.GetRepository())
		if err != nil {
			continue
		}
		if name, err := reference.ParseTagOrDigest(repository, message.GetReference()); err == nil {
			names[i] = name
		}
	}
	return names
}

func resolvedMessage(answer registry.Resolved) *registryv1.ResolveResponse {
	return &registryv1.ResolveResponse{
		Descriptor_: descriptorMessage(answer.Descriptor), Provenance: provenanceMessage(answer.Provenance),
	}
}

func parseLimit(limit int32) (int, error) {
	if limit < 0 {
		return 0, errdef.New(errdef.UsageInvalid, "a page cannot have %d tags", limit).WithRemedy("0 for the default")
	}
	if limit == 0 {
		return defaultTags, nil
	}
	return int(limit), nil
}

func descriptorMessage(desc ocispec.Descriptor) *registryv1.Descriptor {
	return &registryv1.Descriptor{
		MediaType: desc.MediaType, Digest: desc.Digest.String(), Size: desc.Size,
		ArtifactType: desc.ArtifactType, Annotations: desc.Annotations,
	}
}

func provenanceMessage(p registry.Provenance) *registryv1.Provenance {
	message := &registryv1.Provenance{
		CatalogIndex: uint64(p.Index), Fresh: p.Fresh, StaleReason: p.StaleReason, Node: p.Node,
		Source: sourceMessage(p.Source), Observed: timeMessage(p.Observed), Why: string(p.Why),
	}
	if !p.Observed.IsZero() {
		message.Age = durationpb.New(p.Age)
	}
	return message
}
