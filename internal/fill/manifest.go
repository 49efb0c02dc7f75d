package fill

import (
	"encoding/json"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// Media types of manifests that OCI's Go module does not name.
const (
	mediaTypeDockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeArtifactManifest   = "application/vnd.oci.artifact.manifest.v1+json" // withdrawn from OCI, still found
)

const (
	// maxChildren bounds the descriptors of one manifest, well below what one command may carry.
	maxChildren = 10_000
	// maxDepth bounds the nesting of JSON from an upstream. Manifests of any known kind need less than ten.
	maxDepth = 32
)

// shape tells which of its fields a manifest of some media type may have.
type shape uint8

const (
	shapeImage    shape = iota + 1 // config and layers
	shapeIndex                     // manifests
	shapeArtifact                  // blobs
)

// shapeOf returns the shape of a media type; false for one that is not a manifest we can read.
func shapeOf(mediaType string) (shape, bool) {
	switch mediaType {
	case ocispec.MediaTypeImageManifest, mediaTypeDockerManifest:
		return shapeImage, true
	case ocispec.MediaTypeImageIndex, mediaTypeDockerManifestList:
		return shapeIndex, true
	case mediaTypeArtifactManifest:
		return shapeArtifact, true
	}
	return 0, false
}

// document is the union of all manifest kinds (image spec, "manifest.md" and "image-index.md").
type document struct {
	MediaType    string               `json:"mediaType"`
	ArtifactType string               `json:"artifactType"`
	Config       *ocispec.Descriptor  `json:"config"`
	Layers       []ocispec.Descriptor `json:"layers"`
	Manifests    []ocispec.Descriptor `json:"manifests"`
	Blobs        []ocispec.Descriptor `json:"blobs"`
	Subject      *ocispec.Descriptor  `json:"subject"`
	Annotations  map[string]string    `json:"annotations"`
}

// parseManifest reads the manifest that desc describes into what the catalog keeps of it. body was verified against
// desc.Digest. It fails with MEDIA_TYPE_INVALID when the body contradicts desc.MediaType, so that the same bytes are
// never read as two different things (CVE-2021-41190), and with MANIFEST_INVALID otherwise.
func parseManifest(desc ocispec.Descriptor, body []byte) (catalog.Manifest, error) {
	kind, ok := shapeOf(desc.MediaType)
	if !ok {
		return catalog.Manifest{}, errdef.New(errdef.MediaTypeInvalid, "%s has media type %q, which is no manifest",
			desc.Digest, shorten(desc.MediaType))
	}
	var doc document
	if err := decode(body, &doc); err != nil {
		return catalog.Manifest{}, errdef.Wrap(errdef.ManifestInvalid, err, "manifest %s", desc.Digest)
	}
	if err := doc.check(desc, kind); err != nil {
		return catalog.Manifest{}, err
	}
	manifest := catalog.Manifest{
		Descriptor: ocispec.Descriptor{
			MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size, ArtifactType: doc.ArtifactType,
		},
		Source: catalog.SourceUpstream,
	}
	if kind == shapeImage && doc.ArtifactType == "" && doc.Config != nil {
		manifest.Descriptor.ArtifactType = doc.Config.MediaType // distribution spec, "Listing Referrers"
	}
	if doc.Subject != nil {
		if _, err := reference.ParseDigest(doc.Subject.Digest.String()); err != nil {
			return catalog.Manifest{}, errdef.Wrap(errdef.ManifestInvalid, err, "subject of manifest %s", desc.Digest)
		}
		manifest.Subject = doc.Subject.Digest
		manifest.Descriptor.Annotations = doc.Annotations // only a referrers list shows them
	}
	var err error
	manifest.Children, err = children(desc.Digest, doc.children())
	return manifest, err
}

func (d *document) check(desc ocispec.Descriptor, kind shape) error {
	if d.MediaType != "" && d.MediaType != desc.MediaType {
		return errdef.New(errdef.MediaTypeInvalid, "manifest %s calls itself %q and was served as %q",
			desc.Digest, shorten(d.MediaType), desc.MediaType)
	}
	image, index, artifact := d.Config != nil || d.Layers != nil, d.Manifests != nil, d.Blobs != nil
	if (image && kind != shapeImage) || (index && kind != shapeIndex) || (artifact && kind != shapeArtifact) {
		return errdef.New(errdef.MediaTypeInvalid, "manifest %s has fields that %s has not", desc.Digest, desc.MediaType)
	}
	if kind == shapeImage && d.Config == nil {
		return errdef.New(errdef.ManifestInvalid, "manifest %s has no config", desc.Digest)
	}
	if kind == shapeIndex && d.Manifests == nil {
		return errdef.New(errdef.ManifestInvalid, "image index %s has no manifests", desc.Digest)
	}
	return nil
}

func (d *document) children() []ocispec.Descriptor {
	var all []ocispec.Descriptor
	if d.Config != nil {
		all = append(all, *d.Config)
	}
	return append(append(append(all, d.Layers...), d.Manifests...), d.Blobs...)
}

// children returns what a manifest names, each digest once, reduced to what the catalog keeps.
func children(parent digest.Digest, named []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if len(named) > maxChildren {
		return nil, errdef.New(errdef.ManifestInvalid, "manifest %s names %d descriptors", parent, len(named)).
			WithRemedy("at most %d", maxChildren)
	}
	var kept []ocispec.Descriptor
	seen := make(map[digest.Digest]bool, len(named))
	for _, child := range named {
		if err := checkDescriptor(child); err != nil {
			return nil, errdef.Wrap(errdef.ManifestInvalid, err, "manifest %s", parent)
		}
		if !seen[child.Digest] {
			seen[child.Digest] = true
			kept = append(kept, ocispec.Descriptor{
				MediaType: child.MediaType, Digest: child.Digest, Size: child.Size,
				ArtifactType: child.ArtifactType, Platform: child.Platform,
			})
		}
	}
	return kept, nil
}

func checkDescriptor(desc ocispec.Descriptor) error {
	if _, err := reference.ParseDigest(desc.Digest.String()); err != nil {
		return err
	}
	if desc.Size < 0 {
		return errdef.New(errdef.ManifestInvalid, "descriptor %s has size %d", desc.Digest, desc.Size)
	}
	if desc.MediaType == "" {
		return errdef.New(errdef.ManifestInvalid, "descriptor %s has no media type", desc.Digest)
	}
	return nil
}

// decode reads JSON that an upstream sent. The caller has bounded its size.
func decode(body []byte, into any) error {
	if depth := nesting(body); depth > maxDepth {
		return errdef.New(errdef.ManifestInvalid, "JSON nested more than %d deep", maxDepth)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return errdef.Wrap(errdef.ManifestInvalid, err, "no valid JSON")
	}
	return nil
}

// nesting returns how deep arrays and objects are nested, and stops counting soon after maxDepth. It does not need the
// body to be valid JSON.
func nesting(body []byte) int {
	depth, deepest, inString := 0, 0, false
	for i := 0; i < len(body) && deepest <= maxDepth; i++ {
		switch c := body[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

func shorten(text string) string {
	if len(text) > 100 {
		return text[:100] + "..."
	}
	return text
}
