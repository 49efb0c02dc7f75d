package client

import (
	"context"
	"errors"
	"io"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/errdef"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
	"github.com/ocistern/ocistern/internal/reference"
)

// Repository reads one repository. It is an oras.GraphTarget whose Push and Tag return ErrUnsupported, so
// oras.ReadOnlyGraphTarget as well, and a registry.ReferrerLister, registry.TagLister and registry.ReferenceFetcher of
// oras-go. It is safe for concurrent use and costs nothing to make.
type Repository struct {
	client *Client
	name   reference.Repository
}

// Name returns the name of the repository.
func (r *Repository) Name() string { return string(r.name) }

// Resolve returns the descriptor of a manifest by tag, by digest, or by a full reference into this repository.
func (r *Repository) Resolve(ctx context.Context, ref string) (ocispec.Descriptor, error) {
	resolution, err := r.ResolveDetailed(ctx, ref)
	return resolution.Descriptor, err
}

// ResolveDetailed is Resolve with the provenance of the answer.
func (r *Repository) ResolveDetailed(ctx context.Context, ref string) (Resolution, error) {
	parsed, err := r.parse(ref)
	if err != nil {
		return Resolution{}, err
	}
	var resolution Resolution
	err = r.client.callNode(ctx, r.client.sticky(), func(ctx context.Context, node *endpoint) error {
		told, err := r.resolve(ctx, node, tagOrDigestOf(parsed))
		if err != nil {
			return err
		}
		answer := told.answer
		resolution = Resolution{descriptorOf(answer.GetDescriptor_()), provenanceOf(answer.GetProvenance())}
		if err := checkDescriptor(resolution.Descriptor, parsed.Digest); err != nil {
			return err
		}
		return r.client.session.accept(told.asked, answer.GetProvenance())
	})
	return resolution, err
}

// Exists reports whether the repository has the content. For a blob of a mirrored repository this can make the cluster
// fetch it.
func (r *Repository) Exists(ctx context.Context, target ocispec.Descriptor) (bool, error) {
	var err error
	if isManifest(target.MediaType) {
		_, err = r.Resolve(ctx, target.Digest.String())
	} else {
		var content io.ReadCloser
		if content, err = r.Fetch(ctx, target); err == nil {
			err = content.Close()
		}
	}
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Predecessors returns the manifests that have node as their subject. Image indexes that list node are not among them:
// registries cannot tell.
func (r *Repository) Predecessors(ctx context.Context, node ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	list, err := r.ReferrersDetailed(ctx, node, "")
	return list.Descriptors, err
}

// Referrers calls fn once with the complete list of the referrers of subject, filtered by artifact type unless that is
// empty. fn is not called for an empty list, nor when the list could not be completed: that is an error.
func (r *Repository) Referrers(
	ctx context.Context, subject ocispec.Descriptor, artifactType string, fn func(referrers []ocispec.Descriptor) error,
) error {
	list, err := r.ReferrersDetailed(ctx, subject, artifactType)
	if err != nil || len(list.Descriptors) == 0 {
		return err
	}
	return fn(list.Descriptors)
}

// ReferrersDetailed returns the complete list of the referrers of subject with its provenance.
func (r *Repository) ReferrersDetailed(
	ctx context.Context, subject ocispec.Descriptor, artifactType string,
) (ReferrerList, error) {
	dgst, err := reference.ParseDigest(subject.Digest.String())
	if err != nil {
		return ReferrerList{}, err
	}
	var list ReferrerList
	err = r.client.call(ctx, func(ctx context.Context, api registryv1.RegistryServiceClient) error {
		target := r.target(dgst.String())
		answer, err := api.ListReferrers(ctx, &registryv1.ListReferrersRequest{Target: target, ArtifactType: artifactType})
		if err != nil {
			return err
		}
		list = ReferrerList{descriptorsOf(answer.GetReferrers()), provenanceOf(answer.GetProvenance())}
		for _, descriptor := range list.Descriptors {
			if err := checkDescriptor(descriptor, ""); err != nil {
				return err
			}
		}
		return r.client.session.accept(target.GetMinIndex(), answer.GetProvenance())
	})
	return list, err
}

// Push returns ErrUnsupported: push to the upstream registry.
func (r *Repository) Push(context.Context, ocispec.Descriptor, io.Reader) error {
	return errReadOnly("push to")
}

// Tag returns ErrUnsupported: tag in the upstream registry.
func (r *Repository) Tag(context.Context, ocispec.Descriptor, string) error {
	return errReadOnly("tag in")
}

func errReadOnly(verb string) error {
	return errdef.New(errdef.Unsupported, "this version of the client only reads").
		WithRemedy("%s the upstream registry, and read through the cluster", verb)
}

// target names tagOrDigest in this repository, as of the session's index.
func (r *Repository) target(tagOrDigest string) *registryv1.Target {
	target := r.client.level()
	target.Repository, target.Reference = string(r.name), tagOrDigest
	return target
}

// parse reads a tag, a digest, `tag@digest` (the digest wins, as in oras-go), or a full reference into this repository.
func (r *Repository) parse(ref string) (reference.Reference, error) {
	if dgst, err := reference.ParseDigest(ref); err == nil {
		return reference.Reference{Repository: r.name, Digest: dgst}, nil
	}
	if !strings.ContainsAny(ref, "/@") && !strings.HasPrefix(ref, string(r.name)+":") {
		return reference.ParseTagOrDigest(r.name, ref)
	}
	if tag, _, found := strings.Cut(ref, "@"); found && !strings.ContainsAny(tag, "/:") && tag != string(r.name) {
		ref = string(r.name) + ":" + ref
	}
	parsed, err := reference.Parse(ref)
	if err == nil && parsed.Repository != r.name {
		err = errdef.New(errdef.ReferenceInvalid, "%s is not in repository %s", parsed, r.name).
			WithRemedy("give a tag, a digest or a reference into this repository")
	}
	return parsed, err
}

// tagOrDigestOf is the part of a reference behind the repository.
func tagOrDigestOf(ref reference.Reference) string {
	if ref.Digest != "" {
		return ref.Digest.String()
	}
	return string(ref.Tag)
}
