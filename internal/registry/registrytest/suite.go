package registrytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
)

// Run runs the suite on what through makes of a fixture's cache.
func Run(t *testing.T, through func(*testing.T, registry.Registry) registry.Registry) {
	for name, check := range map[string]func(*testing.T, *Fixture, registry.Registry){
		"resolve": resolve, "manifests": manifests, "blobs": blobs, "referrers": referrers, "tags": tags,
		"stale": stale, "errors are no answers": failures, "not ready": notReady,
	} {
		t.Run(name, func(t *testing.T) {
			f := New(t)
			check(t, f, through(t, f.Cache))
		})
	}
}

// Caller is the principal of the suite.
func Caller() registry.Principal {
	return registry.Principal{Name: "anonymous", Tenant: reference.DefaultTenant}
}

// Tag returns a target that names a tag.
func Tag(repository reference.Repository, tag reference.Tag) registry.Target {
	return registry.Target{Reference: reference.Reference{Repository: repository, Tag: tag}}
}

// Digest returns a target that names a digest.
func Digest(repository reference.Repository, dgst digest.Digest) registry.Target {
	return registry.Target{Reference: reference.Reference{Repository: repository, Digest: dgst}}
}

func missing() digest.Digest { return digest.FromString("nobody has this") }

func resolve(t *testing.T, f *Fixture, r registry.Registry) {
	for _, c := range []struct {
		target registry.Target
		want   ocispec.Descriptor
		source catalog.Source
		reason errdef.Reason
		asked  int // requests to the upstream
	}{
		{Tag(Mirrored, "v1"), f.Image.Descriptor, catalog.SourceUpstream, "", 0},
		{Tag(Mirrored, "fresh"), f.Fresh.Descriptor, catalog.SourceUpstream, "", 1},
		{Tag(Mirrored, "fresh"), f.Fresh.Descriptor, catalog.SourceUpstream, "", 0},
		{Tag(Mirrored, "nope"), ocispec.Descriptor{}, 0, errdef.NotFound, 1},
		{Tag(Mirrored, "nope"), ocispec.Descriptor{}, 0, errdef.NotFound, 0},
		{Tag(Hosted, "v3"), f.Signature.Descriptor, catalog.SourcePushed, "", 0},
		{Tag(Hosted, "nope"), ocispec.Descriptor{}, 0, errdef.NotFound, 0},
		{Tag(Unknown, "v1"), ocispec.Descriptor{}, 0, errdef.UpstreamUnknown, 0},
		{Digest(Unknown, f.Image.Digest), ocispec.Descriptor{}, 0, errdef.UpstreamUnknown, 0},
		{Digest(Hosted, missing()), ocispec.Descriptor{}, 0, errdef.NotFound, 0},
	} {
		before := f.Upstream.Asked()
		got, err := r.Resolve(t.Context(), Caller(), c.target)
		if errdef.ReasonOf(err) != c.reason {
			t.Errorf("resolve %s: %v, want reason %q", c.target.Reference, err, c.reason)
			continue
		}
		if asked := f.Upstream.Asked() - before; err == nil && asked != c.asked {
			t.Errorf("resolve %s: asked the upstream %d times, want %d", c.target.Reference, asked, c.asked)
		}
		if err == nil {
			same(t, c.target, got.Descriptor, c.want)
			declared(t, f, got.Provenance, c.source)
		}
	}
}

func manifests(t *testing.T, f *Fixture, r registry.Registry) {
	for _, c := range []struct {
		target registry.Target
		want   Content
		reason errdef.Reason
	}{
		{Tag(Mirrored, "v1"), f.Image, ""},
		{Tag(Mirrored, "fresh"), f.Fresh, ""},
		{Tag(Hosted, "v3"), f.Signature, ""},
		{Digest(Mirrored, f.Attestation.Digest), f.Attestation, ""},
		{Digest(Mirrored, f.Layer.Digest), Content{}, errdef.NotFound}, // a layer is no manifest
		{Digest(Mirrored, missing()), Content{}, errdef.NotFound},
		{Digest(Hosted, missing()), Content{}, errdef.NotFound},
		{Digest(Unknown, f.Image.Digest), Content{}, errdef.UpstreamUnknown},
		{Tag(Mirrored, "large"), Content{}, errdef.ManifestTooLarge},
		{Digest(Mirrored, f.Large.Digest), Content{}, errdef.ManifestTooLarge},
	} {
		got, err := r.FetchManifest(t.Context(), Caller(), c.target)
		if errdef.ReasonOf(err) != c.reason {
			t.Errorf("manifest %s: %v, want reason %q", c.target.Reference, err, c.reason)
			continue
		}
		if err == nil {
			same(t, c.target, got.Descriptor, c.want.Descriptor)
			why := map[bool]registry.Why{true: registry.WhyDigest, false: registry.WhyFresh}[c.target.Reference.Digest != ""]
			if c.target.Reference.Repository == Hosted {
				why = registry.WhyPushed
			}
			if got.Provenance.Why != why {
				t.Errorf("manifest %s: why is %q, want %q", c.target.Reference, got.Provenance.Why, why)
			}
			if string(got.Content) != string(c.want.Bytes) {
				t.Errorf("manifest %s: read %q", c.target.Reference, got.Content)
			}
		}
	}
}

func blobs(t *testing.T, f *Fixture, r registry.Registry) {
	for _, c := range []struct {
		target registry.Target
		offset int64
		want   []byte
		reason errdef.Reason
	}{
		{Digest(Mirrored, f.Layer.Digest), 0, f.Layer.Bytes, ""},
		{Digest(Mirrored, f.Layer.Digest), 4, f.Layer.Bytes[4:], ""},
		{Digest(Mirrored, f.Layer.Digest), f.Layer.Size - 1, f.Layer.Bytes[f.Layer.Size-1:], ""},
		{Digest(Mirrored, f.Layer.Digest), f.Layer.Size, nil, errdef.RangeInvalid},
		{Digest(Mirrored, f.Lost.Digest), 0, f.Lost.Bytes, ""},
		{Digest(Mirrored, f.Lost.Digest), 7, f.Lost.Bytes[7:], ""},
		{Digest(Mirrored, f.Lost.Digest), f.Lost.Size, nil, errdef.RangeInvalid},
		{Digest(Mirrored, f.Image.Digest), 0, f.Image.Bytes, ""}, // a manifest is a blob too
		{Digest(Hosted, f.Layer.Digest), 0, f.Layer.Bytes, ""},
		{Digest(Hosted, missing()), 0, nil, errdef.NotFound},
		{Digest(Hosted, f.Fresh.Digest), 0, nil, errdef.NotFound},
		{Digest(Mirrored, missing()), 0, nil, errdef.NotFound},
		{Digest(Unknown, f.Layer.Digest), 0, nil, errdef.UpstreamUnknown},
	} {
		got, err := r.FetchBlob(t.Context(), Caller(), c.target, c.offset)
		var body []byte
		if err == nil {
			body, err = io.ReadAll(got.Content)
			got.Content.Close()
		}
		if errdef.ReasonOf(err) != c.reason || string(body) != string(c.want) {
			t.Errorf("blob %s from %d: %q, %v; want %q, reason %q", c.target.Reference, c.offset, body, err, c.want, c.reason)
			continue
		}
		if err == nil && (got.Descriptor.Size != c.offset+int64(len(c.want)) || got.Provenance.Why != registry.WhyDigest) {
			t.Errorf("blob %s: size %d, why %q", c.target.Reference, got.Descriptor.Size, got.Provenance.Why)
		}
	}
}

func referrers(t *testing.T, f *Fixture, r registry.Registry) {
	for _, c := range []struct {
		target       registry.Target
		artifactType string
		want         []Content
		reason       errdef.Reason
	}{
		{Digest(Mirrored, f.Image.Digest), "", []Content{f.Signature, f.Attestation}, ""},
		{Digest(Mirrored, f.Image.Digest), AttestationType, []Content{f.Attestation}, ""},
		{Digest(Mirrored, f.Image.Digest), "test/none", nil, ""},
		{Digest(Mirrored, f.Signature.Digest), "", nil, ""}, // the upstream is asked, and has none
		{Digest(Hosted, f.Image.Digest), SignatureType, []Content{f.Signature}, ""},
		{Digest(Hosted, missing()), "", nil, ""},
		{Digest(Unknown, f.Image.Digest), "", nil, errdef.UpstreamUnknown},
	} {
		got, err := r.Referrers(t.Context(), Caller(), c.target, c.artifactType)
		if errdef.ReasonOf(err) != c.reason {
			t.Errorf("referrers %s: %v, want reason %q", c.target.Reference, err, c.reason)
			continue
		}
		want := make([]digest.Digest, 0, len(c.want))
		for _, content := range c.want {
			want = append(want, content.Digest)
		}
		found := make([]digest.Digest, 0, len(got.Descriptors))
		for _, desc := range got.Descriptors {
			found = append(found, desc.Digest)
		}
		slices.Sort(want)
		slices.Sort(found)
		if !slices.Equal(found, want) {
			t.Errorf("referrers %s of type %q: %v, want %v", c.target.Reference, c.artifactType, found, want)
		}
	}
}

func tags(t *testing.T, f *Fixture, r registry.Registry) {
	for _, c := range []struct {
		repository reference.Repository
		last       reference.Tag
		limit      int
		want       []reference.Tag
		more       bool
		fresh      bool
		reason     errdef.Reason
	}{
		{Hosted, "", 10, []reference.Tag{"v1", "v2", "v3"}, false, true, ""},
		{Hosted, "", 2, []reference.Tag{"v1", "v2"}, true, true, ""},
		{Hosted, "v2", 2, []reference.Tag{"v3"}, false, true, ""},
		{Hosted, "v3", 2, nil, false, true, ""},
		{Hosted, "v", 3, []reference.Tag{"v1", "v2", "v3"}, false, true, ""},
		{Mirrored, "", 10, []reference.Tag{"v1"}, false, false, ""}, // what was seen so far, and said so
		{Unknown, "", 10, nil, false, false, errdef.UpstreamUnknown},
	} {
		target := registry.Target{Reference: reference.Reference{Repository: c.repository}}
		got, err := r.Tags(t.Context(), Caller(), target, c.last, c.limit)
		if errdef.ReasonOf(err) != c.reason || !slices.Equal(got.Tags, c.want) || got.More != c.more {
			t.Errorf("tags of %s after %q: %v (more %t), %v; want %v (more %t), reason %q",
				c.repository, c.last, got.Tags, got.More, err, c.want, c.more, c.reason)
		}
		why := map[bool]registry.Why{true: registry.WhyPushed, false: registry.WhySeen}[c.fresh]
		if err == nil && (got.Provenance.Fresh != c.fresh || got.Provenance.Why != why) {
			t.Errorf("tags of %s: fresh is %t, why %q", c.repository, got.Provenance.Fresh, got.Provenance.Why)
		}
	}
}

func stale(t *testing.T, f *Fixture, r registry.Registry) {
	if err := StaleIsDeclared(t.Context(), f, r); err != nil {
		t.Error(err)
	}
}

// StaleIsDeclared checks guarantee G6 and says where it does not hold: inside the bound a stale answer is given, with its
// age and why; past it the error is.
func StaleIsDeclared(ctx context.Context, f *Fixture, r registry.Registry) error {
	var found []error
	observed := f.Now()
	f.Advance(FreshFor + StaleFor/2)
	f.Upstream.Fail(errdef.New(errdef.UpstreamThrottled, "planted"))
	check := func(api string, p registry.Provenance, err error) {
		if err != nil || p.Fresh || p.StaleReason != string(errdef.UpstreamThrottled) || p.Why != registry.Why(p.StaleReason) {
			found = append(found, fmt.Errorf("%s inside the staleness bound: %+v, %w", api, p, err))
		}
		if age := f.Now().Sub(observed); err == nil && (!p.Observed.Equal(observed) || p.Age != age) {
			found = append(found, fmt.Errorf("%s: observed %s, %s ago; want %s, %s ago", api, p.Observed, p.Age, observed, age))
		}
	}
	resolved, err := r.Resolve(ctx, Caller(), Tag(Mirrored, "v1"))
	check("resolve", resolved.Provenance, err)
	fetched, err := r.FetchManifest(ctx, Caller(), Tag(Mirrored, "v1"))
	check("manifest", fetched.Provenance, err)
	listed, err := r.Referrers(ctx, Caller(), Digest(Mirrored, f.Image.Digest), "")
	check("referrers", listed.Provenance, err)

	f.Advance(StaleFor)
	if _, err := r.Resolve(ctx, Caller(), Tag(Mirrored, "v1")); errdef.ReasonOf(err) != errdef.UpstreamThrottled {
		found = append(found, fmt.Errorf("resolve past the staleness bound: %w", err))
	}
	f.Upstream.Fail(nil)
	resolved, err = r.Resolve(ctx, Caller(), Tag(Mirrored, "v1"))
	if err != nil || !resolved.Provenance.Fresh || !resolved.Provenance.Observed.Equal(f.Now()) {
		found = append(found, fmt.Errorf("resolve after a refresh: %+v, %w", resolved.Provenance, err))
	}
	return errors.Join(found...)
}

func failures(t *testing.T, f *Fixture, r registry.Registry) {
	if err := ErrorIsNeverAnAnswer(t.Context(), f, r); err != nil {
		t.Error(err)
	}
}

// ErrorIsNeverAnAnswer checks guarantee G5 on r, which answers from f: each failure of the upstream comes back as
// itself, never as an absence, an empty list or content.
func ErrorIsNeverAnAnswer(ctx context.Context, f *Fixture, r registry.Registry) error {
	defer f.Upstream.Fail(nil)
	for _, reason := range []errdef.Reason{
		errdef.UpstreamUnauthorized, errdef.UpstreamDenied, errdef.UpstreamThrottled, errdef.UpstreamUnavailable,
		errdef.UpstreamTimeout, errdef.UpstreamInvalid, errdef.DigestMismatch, errdef.SizeMismatch, errdef.NoQuorum,
		errdef.OutcomeUnknown, errdef.Unavailable, errdef.Internal,
	} {
		f.Upstream.Fail(errdef.New(reason, "planted"))
		for api, err := range everyAPI(ctx, f, r) {
			if errdef.ReasonOf(err) != reason {
				return fmt.Errorf("%s while the upstream fails with %s: %w", api, reason, orNoError(err))
			}
		}
	}
	return nil
}

// everyAPI calls all that needs the upstream for its answer.
func everyAPI(ctx context.Context, f *Fixture, r registry.Registry) iter.Seq2[string, error] {
	tag, fresh, lost := Tag(Mirrored, "fresh"), Digest(Mirrored, f.Fresh.Digest), Digest(Mirrored, f.Lost.Digest)
	return func(yield func(string, error) bool) {
		_, err := r.Resolve(ctx, Caller(), tag)
		more := yield("resolve a tag", err)
		for api, target := range map[string]registry.Target{"manifest by tag": tag, "manifest": fresh} {
			_, err = r.FetchManifest(ctx, Caller(), target)
			more = more && yield(api, err)
		}
		_, err = r.FetchBlob(ctx, Caller(), lost, 0)
		more = more && yield("blob", err)
		for _, artifactType := range []string{"", SignatureType} {
			_, err = r.Referrers(ctx, Caller(), fresh, artifactType)
			more = more && yield("referrers of type "+artifactType, err)
		}
	}
}

func orNoError(err error) error {
	if err == nil {
		return errors.New("an answer instead of an error")
	}
	return err
}

func notReady(t *testing.T, f *Fixture, r registry.Registry) {
	f.SetReady(errdef.New(errdef.NotReady, "planted"))
	if _, err := r.Resolve(t.Context(), Caller(), Tag(Hosted, "v1")); errdef.ReasonOf(err) != errdef.NotReady {
		t.Errorf("resolve on a node that is not ready: %v", err)
	}
	f.SetReady(nil)
	if _, err := r.Resolve(t.Context(), Caller(), Tag(Hosted, "v1")); err != nil {
		t.Errorf("resolve on a ready node: %v", err)
	}
}

func same(t *testing.T, target registry.Target, got, want ocispec.Descriptor) {
	t.Helper()
	if got.Digest != want.Digest || got.Size != want.Size || got.MediaType != want.MediaType {
		t.Errorf("%s: %+v, want %+v", target.Reference, got, want)
	}
}

func declared(t *testing.T, f *Fixture, p registry.Provenance, source catalog.Source) {
	t.Helper()
	if p.Node != Node || p.Source != source || !p.Fresh || p.StaleReason != "" || p.Index != f.Catalog.Snapshot().Index() {
		t.Errorf("provenance %+v, want fresh from source %d at index %d", p, source, f.Catalog.Snapshot().Index())
	}
	why := map[catalog.Source]registry.Why{catalog.SourcePushed: registry.WhyPushed, catalog.SourceUpstream: registry.WhyFresh}
	if p.Observed.IsZero() != (source == catalog.SourcePushed) || p.Why != why[source] {
		t.Errorf("observed %s from source %d, why %q", p.Observed, source, p.Why)
	}
}
