package fill

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

func (n *testNode) tag(ctx context.Context, name string) (ocispec.Descriptor, error) {
	key := Key{testTenant, testRepository, KindTag, name}
	snapshot := n.catalog.Snapshot()
	if found, ok := snapshot.Tag(testTenant, testRepository, reference.Tag(name)); ok {
		return found.Descriptor, nil
	}
	index, err := n.router.Refresh(ctx, key, snapshot.Index())
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if snapshot, err = n.catalog.Wait(ctx, index); err != nil {
		return ocispec.Descriptor{}, err
	}
	found, _ := snapshot.Tag(testTenant, testRepository, reference.Tag(name))
	return found.Descriptor, nil
}

func (n *testNode) referrers(ctx context.Context, subject digest.Digest) ([]ocispec.Descriptor, error) {
	key := Key{testTenant, testRepository, KindReferrers, subject.String()}
	snapshot := n.catalog.Snapshot()
	if list, ok := snapshot.Referrers(testTenant, testRepository, subject); ok {
		return list.Descriptors, nil
	}
	index, err := n.router.Refresh(ctx, key, snapshot.Index())
	if err != nil {
		return nil, err
	}
	if snapshot, err = n.catalog.Wait(ctx, index); err != nil {
		return nil, err
	}
	list, _ := snapshot.Referrers(testTenant, testRepository, subject)
	return list.Descriptors, nil
}

func (n *testNode) content(ctx context.Context, kind ContentKind, dgst digest.Digest) ([]byte, error) {
	if _, linked := n.catalog.Snapshot().Link(testTenant, testRepository, dgst); linked {
		if content, err := n.store.Open(dgst); err == nil {
			defer content.Close()
			return io.ReadAll(content)
		}
	}
	stream, err := n.router.Fetch(ctx, ContentKey{testTenant, testRepository, kind, dgst}, 0)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	return io.ReadAll(stream)
}

// verify does what a verifier does with an image: its tag, manifest and layers, its signatures and theirs.
func (n *testNode) verify(ctx context.Context, tag string, signatures int) error {
	image, err := n.tag(ctx, tag)
	if err != nil {
		return err
	}
	if err := n.walk(ctx, image.Digest); err != nil {
		return err
	}
	list, err := n.referrers(ctx, image.Digest)
	if err != nil {
		return err
	}
	if len(list) != signatures {
		return errdef.New(errdef.Internal, "%d of %d signatures", len(list), signatures)
	}
	for _, signature := range list {
		if err := n.walk(ctx, signature.Digest); err != nil {
			return err
		}
		if none, err := n.referrers(ctx, signature.Digest); err != nil || len(none) > 0 {
			return errdef.New(errdef.Internal, "referrers of a signature: %v, %v", none, err)
		}
	}
	return nil
}

// walk reads a manifest and all that it names.
func (n *testNode) walk(ctx context.Context, dgst digest.Digest) error {
	body, err := n.content(ctx, ContentManifest, dgst)
	if err != nil {
		return err
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: dgst}
	manifest, err := parseManifest(desc, body)
	if err != nil {
		return err
	}
	for _, child := range manifest.Children {
		blob, err := n.content(ctx, ContentBlob, child.Digest)
		if err != nil {
			return err
		}
		if digest.FromBytes(blob) != child.Digest {
			return errdef.New(errdef.DigestMismatch, "%d bytes of %s", len(blob), child.Digest)
		}
	}
	return nil
}

// eventually waits for something that happens after a caller has its answer.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// layer returns content of some size that compresses badly and differs by seed.
func layer(size int, seed string) []byte {
	var b strings.Builder
	for sum := digest.FromString(seed); b.Len() < size; sum = digest.FromString(sum.String()) {
		b.WriteString(sum.Encoded())
	}
	return []byte(b.String()[:size])
}
