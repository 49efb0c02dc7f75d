package fill

import (
	"encoding/json"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/errdef"
)

// maxReferrers bounds the list of one subject; a longer one is an error, never cut.
const maxReferrers = 10_000

// parseReferrers reads one page of the referrers API, or the index of the tag schema. What is not an image index that
// says what it lists is an error: an answer like {} or {"errors":[...]} must not pass for an empty list (guarantee G5).
func parseReferrers(body []byte) ([]ocispec.Descriptor, error) {
	var index struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"` // told apart: missing, null, empty
	}
	if err := decode(body, &index); err != nil {
		return nil, errdef.Wrap(errdef.UpstreamInvalid, err, "referrers list")
	}
	if index.SchemaVersion != 2 || (index.MediaType != "" && index.MediaType != ocispec.MediaTypeImageIndex) {
		return nil, errdef.New(errdef.UpstreamInvalid, "referrers list is no image index: schema version %d, media type %q",
			index.SchemaVersion, shorten(index.MediaType))
	}
	if index.Manifests == nil {
		return nil, errdef.New(errdef.UpstreamInvalid, "referrers list has no field manifests")
	}
	var list []ocispec.Descriptor
	if err := json.Unmarshal(index.Manifests, &list); err != nil {
		return nil, errdef.Wrap(errdef.UpstreamInvalid, err, "referrers list")
	}
	return cleanReferrers(list)
}

// cleanReferrers returns a list in its order, each digest once. One bad descriptor makes the whole list an error. The
// descriptors are the upstream's claim: whether a referrer really names the subject is for whoever reads it to check.
func cleanReferrers(list []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	kept := make([]ocispec.Descriptor, 0, min(len(list), maxReferrers))
	seen := make(map[digest.Digest]bool, cap(kept))
	for _, desc := range list {
		if err := checkDescriptor(desc); err != nil {
			return nil, errdef.Wrap(errdef.UpstreamInvalid, err, "referrers list")
		}
		if seen[desc.Digest] {
			continue
		}
		if len(kept) == maxReferrers {
			return nil, errdef.New(errdef.UpstreamInvalid, "the subject has more than %d referrers", maxReferrers)
		}
		seen[desc.Digest] = true
		desc.Data, desc.URLs = nil, nil // neither belongs in the log
		kept = append(kept, desc)
	}
	return kept, nil
}
