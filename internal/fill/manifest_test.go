package fill

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

var (
	digestA = digest.FromString("a").String()
	digestB = digest.SHA512.FromString("b").String()
)

func descriptorJSON(mediaType, dgst string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":3}`, mediaType, dgst)
}

func describe(mediaType string, body string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(body), Size: int64(len(body))}
}

func TestParseManifest(t *testing.T) {
	config, layer := descriptorJSON("application/config", digestA), descriptorJSON("application/layer", digestB)
	image := `"config":` + config + `,"layers":[` + layer + `,` + layer + `]`
	for _, c := range []struct {
		name, mediaType, body string
		children              int
		artifactType          string
		subject               string
		want                  errdef.Reason
	}{
		{name: "image", mediaType: ocispec.MediaTypeImageManifest, children: 2, artifactType: "application/config",
			body: `{` + image + `}`},
		{name: "docker image", mediaType: mediaTypeDockerManifest, children: 2, artifactType: "application/config",
			body: `{"mediaType":"` + mediaTypeDockerManifest + `",` + image + `}`},
		{name: "signature", mediaType: ocispec.MediaTypeImageManifest, children: 2,
			artifactType: "application/sig", subject: digestA,
			body: `{"artifactType":"application/sig","subject":` + config + `,` + image + `}`},
		{name: "index", mediaType: ocispec.MediaTypeImageIndex, body: `{"manifests":[` + layer + `]}`, children: 1},
		{name: "empty index", mediaType: ocispec.MediaTypeImageIndex, body: `{"manifests":[]}`},
		{name: "docker list", mediaType: mediaTypeDockerManifestList, body: `{"manifests":[` + layer + `]}`, children: 1},
		{name: "artifact manifest", mediaType: mediaTypeArtifactManifest, artifactType: "a/b", children: 1,
			body: `{"artifactType":"a/b","blobs":[` + layer + `]}`},

		{name: "unknown media type", mediaType: "text/html", body: `{}`, want: errdef.MediaTypeInvalid},
		{name: "other media type inside", mediaType: ocispec.MediaTypeImageManifest, want: errdef.MediaTypeInvalid,
			body: `{"mediaType":"` + ocispec.MediaTypeImageIndex + `",` + image + `}`},
		{name: "image with manifests", mediaType: ocispec.MediaTypeImageManifest, want: errdef.MediaTypeInvalid,
			body: `{"manifests":[],` + image + `}`},
		{name: "index with layers", mediaType: ocispec.MediaTypeImageIndex, want: errdef.MediaTypeInvalid,
			body: `{"manifests":[],` + image + `}`},
		{name: "image without config", mediaType: ocispec.MediaTypeImageManifest, want: errdef.ManifestInvalid,
			body: `{"layers":[]}`},
		{name: "index without manifests", mediaType: ocispec.MediaTypeImageIndex, body: `{}`, want: errdef.ManifestInvalid},
		{name: "not JSON", mediaType: ocispec.MediaTypeImageIndex, body: `<html>`, want: errdef.ManifestInvalid},
		{name: "cut off", mediaType: ocispec.MediaTypeImageIndex, body: `{"manifests":[`, want: errdef.ManifestInvalid},
		{name: "deep", mediaType: ocispec.MediaTypeImageIndex, want: errdef.ManifestInvalid,
			body: `{"manifests":[],"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`},
		{name: "bad digest of a child", mediaType: ocispec.MediaTypeImageIndex, want: errdef.ManifestInvalid,
			body: `{"manifests":[` + descriptorJSON("a/b", "sha256:xyz") + `]}`},
		{name: "negative size", mediaType: ocispec.MediaTypeImageIndex, want: errdef.ManifestInvalid,
			body: `{"manifests":[{"mediaType":"a/b","digest":"` + digestA + `","size":-1}]}`},
		{name: "bad subject", mediaType: ocispec.MediaTypeImageIndex, want: errdef.ManifestInvalid,
			body: `{"manifests":[],"subject":{"digest":"../../etc"}}`},
		{name: "too many children", mediaType: ocispec.MediaTypeImageIndex, want: errdef.ManifestInvalid,
			body: `{"manifests":[` + strings.Repeat(layer+",", maxChildren) + layer + `]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			manifest, err := parseManifest(describe(c.mediaType, c.body), []byte(c.body))
			expect(t, "parse", err, c.want)
			if err != nil {
				return
			}
			if len(manifest.Children) != c.children || manifest.Descriptor.ArtifactType != c.artifactType ||
				manifest.Subject.String() != c.subject || manifest.Descriptor.MediaType != c.mediaType {
				t.Errorf("got %+v", manifest)
			}
		})
	}
}

func TestParseReferrers(t *testing.T) {
	one := descriptorJSON("a/b", digestA)
	for _, c := range []struct {
		body string
		want int // -1 for an error
	}{
		{`{"schemaVersion":2,"manifests":[]}`, 0},
		{`{"schemaVersion":2,"manifests":null}`, 0},
		{`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[` + one + `]}`, 1},
		{`{"schemaVersion":2,"manifests":[` + one + `,` + one + `]}`, 1},
		{`{"schemaVersion":2}`, -1},
		{`{"manifests":[]}`, -1},
		{`{"errors":[]}`, -1},
		{`[]`, -1},
		{``, -1},
		{`{"schemaVersion":2,"manifests":{}}`, -1},
		{`{"schemaVersion":2,"mediaType":"text/html","manifests":[]}`, -1},
		{`{"schemaVersion":2,"manifests":[{}]}`, -1},
		{`{"schemaVersion":2,"manifests":[` + one + `,{"mediaType":"a/b","digest":"x","size":1}]}`, -1},
		{`{"schemaVersion":2,"manifests":[{"digest":"` + digestA + `","size":1}]}`, -1},
	} {
		list, err := parseReferrers([]byte(c.body))
		if (err != nil) != (c.want < 0) || (err == nil && len(list) != c.want) {
			t.Errorf("%s: got %d, %v", c.body, len(list), err)
		}
		if err != nil && errdef.ReasonOf(err) != errdef.UpstreamInvalid {
			t.Errorf("%s: reason %s", c.body, errdef.ReasonOf(err))
		}
	}
	many := make([]ocispec.Descriptor, maxReferrers+1)
	for n := range many {
		many[n] = describe("a/b", fmt.Sprint(n))
	}
	if _, err := cleanReferrers(many); errdef.ReasonOf(err) != errdef.UpstreamInvalid {
		t.Errorf("a list over the limit: %v", err)
	}
	if list, err := cleanReferrers(many[1:]); err != nil || len(list) != maxReferrers {
		t.Errorf("a list at the limit: %d, %v", len(list), err)
	}
}

func FuzzParseManifest(f *testing.F) {
	config := descriptorJSON("application/config", digestA)
	f.Add(ocispec.MediaTypeImageManifest, `{"config":`+config+`,"layers":[`+config+`],"subject":`+config+`}`)
	f.Add(ocispec.MediaTypeImageIndex, `{"manifests":[`+config+`]}`)
	f.Add(mediaTypeArtifactManifest, `{"blobs":[`+config+`]}`)
	f.Add(mediaTypeDockerManifestList, `{"manifests":[[[[]]]]}`)
	f.Fuzz(func(t *testing.T, mediaType, body string) {
		manifest, err := parseManifest(describe(mediaType, body), []byte(body))
		if err != nil {
			if reason := errdef.ReasonOf(err); reason != errdef.ManifestInvalid && reason != errdef.MediaTypeInvalid {
				t.Errorf("reason %s: %v", reason, err)
			}
			return
		}
		if !json.Valid([]byte(body)) {
			t.Error("accepted what is not JSON")
		}
		if len(manifest.Children) > maxChildren {
			t.Errorf("%d children", len(manifest.Children))
		}
		for _, child := range manifest.Children {
			checkFuzzed(t, child)
		}
		if manifest.Subject != "" {
			if _, err := reference.ParseDigest(manifest.Subject.String()); err != nil {
				t.Error(err)
			}
		}
	})
}

func FuzzParseReferrers(f *testing.F) {
	f.Add(`{"schemaVersion":2,"manifests":[]}`)
	f.Add(`{"schemaVersion":2,"manifests":[` + descriptorJSON("a/b", digestA) + `]}`)
	f.Add(`{"errors":[{"code":"DENIED"}]}`)
	f.Fuzz(func(t *testing.T, body string) {
		list, err := parseReferrers([]byte(body))
		if err != nil {
			if reason := errdef.ReasonOf(err); reason != errdef.UpstreamInvalid {
				t.Errorf("reason %s: %v", reason, err)
			}
			return
		}
		if !json.Valid([]byte(body)) {
			t.Errorf("took %q for a list", body)
		}
		seen := map[digest.Digest]bool{}
		for _, desc := range list {
			checkFuzzed(t, desc)
			if seen[desc.Digest] {
				t.Errorf("%s twice", desc.Digest)
			}
			seen[desc.Digest] = true
		}
	})
}

func checkFuzzed(t *testing.T, desc ocispec.Descriptor) {
	t.Helper()
	if _, err := reference.ParseDigest(desc.Digest.String()); err != nil || desc.Size < 0 || desc.MediaType == "" {
		t.Errorf("accepted %+v", desc)
	}
}
