package prefetch

import (
	"context"
	"encoding/json"
	"io"
	"regexp"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
)

// walk is one walk around what a caller has asked for.
type walk struct {
	ahead      *Ahead
	inner      registry.Registry // which begins no walks
	principal  registry.Principal
	repository reference.Repository
	largest    int64
	slots      chan struct{} // shared by all walks of the upstream
	group      *errgroup.Group

	// What follows is guarded by mu of ahead.
	claimed []digest.Digest
	wanted  int   // objects, those that this node had included
	sized   int64 // what they said they have
	objects int   // that an upstream or another node was asked for
	bytes   int64
}

// from walks, and returns the error that ended it.
func (w *walk) from(ctx context.Context, from origin, depth int) error {
	group, ctx := errgroup.WithContext(ctx)
	w.group = group
	attachment := attachedTag.MatchString(string(from.named.Tag))
	switch {
	case from.listed:
		w.artifacts(ctx, from.referrers, depth-1)
	case !attachment: // these have no referrers
		group.Go(func() error { return w.list(ctx, from.root.Digest, depth) })
	}
	group.Go(func() error {
		artifact, err := w.root(ctx, from.root, attachment)
		if err == nil && !artifact {
			err = w.attached(ctx, from.root.Digest)
		}
		return err
	})
	return group.Wait()
}

// root tells whether what was asked for is an artifact itself. Its blobs are read ahead then; those of images nobody verifies.
func (w *walk) root(ctx context.Context, root ocispec.Descriptor, attachment bool) (artifact bool, err error) {
	if root.Size == 0 || root.Size > w.largest { // size 0: a caller asked for its referrers, and may not want itself
		return attachment, nil
	}
	manifest, err := w.manifest(ctx, root.Digest) // which was answered: it is here
	artifact = attachment || manifest.isArtifact()
	if artifact {
		w.blobs(ctx, manifest)
	}
	return artifact, err
}

// list lists the referrers of a subject and walks on to them.
func (w *walk) list(ctx context.Context, subject digest.Digest, depth int) error {
	if depth == 0 || !w.afford(0) {
		return nil
	}
	var list registry.Referrers
	err := w.ask(ctx, func() (filled bool, size int64, err error) {
		list, err = w.inner.Referrers(ctx, w.principal, w.target(reference.Reference{Digest: subject}), "")
		return asked(list.Provenance), 0, err
	})
	w.artifacts(ctx, list.Descriptors, depth-1)
	return err
}

func (w *walk) artifacts(ctx context.Context, list []ocispec.Descriptor, depth int) {
	for _, desc := range list {
		w.artifact(ctx, desc, depth)
	}
}

// artifact reads one referrer: its manifest, its blobs, and what refers to it, unless that is known. A list that is only not
// fresh any more is left to who needs it: else images that are only resolved now and then would be asked about for ever.
func (w *walk) artifact(ctx context.Context, desc ocispec.Descriptor, depth int) {
	if !w.wants(desc) {
		return
	}
	w.group.Go(func() error {
		manifest, err := w.manifest(ctx, desc.Digest)
		w.blobs(ctx, manifest)
		return err
	})
	if !w.ahead.Listed(w.principal.Tenant, w.repository, desc.Digest) {
		w.group.Go(func() error { return w.list(ctx, desc.Digest, depth) })
	}
}

// content is what a walk needs to know of a manifest. The config is left out: verifiers do not read it.
type content struct {
	ArtifactType string               `json:"artifactType"`
	Subject      *ocispec.Descriptor  `json:"subject"`
	Layers       []ocispec.Descriptor `json:"layers"`
	Blobs        []ocispec.Descriptor `json:"blobs"`
}

func (c content) isArtifact() bool { return c.Subject != nil || c.ArtifactType != "" }

func (w *walk) manifest(ctx context.Context, dgst digest.Digest) (content, error) {
	var parsed content
	err := w.ask(ctx, func() (bool, int64, error) {
		manifest, err := w.inner.FetchManifest(ctx, w.principal, w.target(reference.Reference{Digest: dgst}))
		if err == nil {
			err = parse(manifest.Content, &parsed)
		}
		return asked(manifest.Provenance), manifest.Descriptor.Size, err
	})
	return parsed, err
}

func parse(body []byte, into *content) error {
	if err := json.Unmarshal(body, into); err != nil { // hardly: package fill has parsed it
		return errdef.Wrap(errdef.ManifestInvalid, err, "manifest")
	}
	return nil
}

func (w *walk) blobs(ctx context.Context, of content) {
	for _, desc := range append(of.Layers, of.Blobs...) {
		if !w.wants(desc) {
			continue
		}
		w.group.Go(func() error {
			return w.ask(ctx, func() (bool, int64, error) { return w.blob(ctx, desc) })
		})
	}
}

// blob reads a blob to its end: only then is it durable here.
func (w *walk) blob(ctx context.Context, desc ocispec.Descriptor) (filled bool, size int64, err error) {
	blob, err := w.inner.FetchBlob(ctx, w.principal, w.target(reference.Reference{Digest: desc.Digest}), 0)
	if err != nil {
		return false, 0, err
	}
	if filled = asked(blob.Provenance); filled {
		size, err = io.Copy(io.Discard, io.LimitReader(blob.Content, w.largest))
	}
	if closeErr := blob.Content.Close(); err == nil {
		err = closeErr
	}
	return filled, size, err
}

// attachedTag is how cosign names what belongs to a digest, where it uses no referrers
// (sigstore/cosign, specs/SIGNATURE_SPEC.md).
var attachedTag = regexp.MustCompile(`^sha256-[0-9a-f]{64}(\.(?:sig|att|sbom))$`)

// attachedNames is how many of a repository's tags are looked at for such names.
const attachedNames = 96

// attached reads what cosign attached to a digest, for the kinds of which the cluster has seen one in this repository:
// elsewhere nobody asks for them, and the upstream would only say 404.
func (w *walk) attached(ctx context.Context, subject digest.Digest) error {
	if subject.Algorithm() != digest.SHA256 {
		return nil
	}
	target := registry.Target{Reference: reference.Reference{Repository: w.repository}}
	page, err := w.inner.Tags(ctx, w.principal, target, "sha256-", attachedNames)
	if err != nil {
		return err
	}
	kinds := map[string]bool{}
	for _, tag := range page.Tags {
		if match := attachedTag.FindStringSubmatch(string(tag)); match != nil {
			kinds[match[1]] = true
		}
	}
	for kind := range kinds {
		tag := reference.Tag("sha256-" + subject.Encoded() + kind)
		w.group.Go(func() error { return w.attachment(ctx, tag) })
	}
	return nil
}

func (w *walk) attachment(ctx context.Context, tag reference.Tag) error {
	if !w.afford(0) {
		return nil
	}
	var resolved registry.Resolved
	err := w.ask(ctx, func() (filled bool, size int64, err error) {
		resolved, err = w.inner.Resolve(ctx, w.principal, w.target(reference.Reference{Tag: tag}))
		return asked(resolved.Provenance), resolved.Descriptor.Size, err
	})
	if err == nil && resolved.Descriptor.Digest != "" {
		w.artifact(ctx, resolved.Descriptor, 0)
	}
	return err
}

func (w *walk) target(named reference.Reference) registry.Target {
	named.Repository = w.repository
	return registry.Target{Reference: named}
}

// ask makes one call when its turn has come. It keeps an error about one object to itself.
func (w *walk) ask(ctx context.Context, call func() (filled bool, size int64, err error)) error {
	select {
	case w.slots <- struct{}{}:
		defer func() { <-w.slots }()
	case <-ctx.Done():
		return errdef.Wrap(errdef.ReasonOf(ctx.Err()), ctx.Err(), "fetching ahead")
	}
	filled, size, err := call()
	if err == nil && filled {
		w.ahead.mu.Lock()
		defer w.ahead.mu.Unlock()
		w.objects++
		w.bytes += size
	}
	if aboutOne(err) {
		return nil
	}
	return err
}

func (w *walk) claim(dgst digest.Digest) claim {
	return claim{w.principal.Tenant, w.repository, dgst}
}

// wants claims an object, where it is small enough, no walk under way has come by it before, and this one may go on.
func (w *walk) wants(desc ocispec.Descriptor) bool {
	w.ahead.mu.Lock()
	defer w.ahead.mu.Unlock()
	if desc.Size > w.largest || w.ahead.claims[w.claim(desc.Digest)] || !w.count(desc.Size) {
		return false
	}
	w.take(desc.Digest)
	return true
}

// afford tells whether the walk may ask for one more object.
func (w *walk) afford(size int64) bool {
	w.ahead.mu.Lock()
	defer w.ahead.mu.Unlock()
	return w.count(size)
}

// count is afford, and take claims an object, for a caller that holds mu of ahead.
func (w *walk) count(size int64) bool {
	if w.wanted >= maxObjects || w.sized+size > maxBytes {
		return false
	}
	w.wanted++
	w.sized += size
	return true
}

func (w *walk) take(dgst digest.Digest) {
	w.ahead.claims[w.claim(dgst)] = true
	w.claimed = append(w.claimed, dgst)
}
