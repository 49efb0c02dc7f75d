package registrytest

import (
	"bytes"
	"context"
	"io"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/fill"
	"github.com/ocistern/ocistern/internal/reference"
)

// Upstream stands for package fill and the registry behind it. It has the content of the fixture, tagged "v1" and, for
// what the catalog does not know yet, "fresh" and "large".
type Upstream struct {
	fixture *Fixture

	// mutex guards what follows.
	mutex   sync.Mutex
	failure error
	hangs   bool
	removed bool
	asked   int
}

func newUpstream(f *Fixture) *Upstream { return &Upstream{fixture: f} }

// Fail makes every request fail, until it is called with nil.
func (u *Upstream) Fail(err error) {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	u.failure = err
}

// Hang makes every request wait until its context ends.
func (u *Upstream) Hang() {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	u.hangs = true
}

// Remove takes the upstream out of the configuration: nothing is mirrored any more.
func (u *Upstream) Remove() {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	u.removed = true
}

// Asked returns how many requests were made.
func (u *Upstream) Asked() int {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	return u.asked
}

func (u *Upstream) request(ctx context.Context) error {
	u.mutex.Lock()
	u.asked++
	failure, hangs := u.failure, u.hangs
	u.mutex.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return failure
}

// Mirrors implements registry.Fill.
func (u *Upstream) Mirrors(repository reference.Repository) bool {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	host, _ := repository.UpstreamHost()
	return host == "up.test" && !u.removed
}

// Refresh implements registry.Fill.
func (u *Upstream) Refresh(ctx context.Context, key fill.Key, _ catalog.LogIndex) (catalog.LogIndex, error) {
	if err := u.request(ctx); err != nil {
		return 0, err
	}
	f := u.fixture
	publish := catalog.Publish{
		Tenant: key.Tenant, Repository: key.Repository, Source: catalog.SourceUpstream, Time: f.Now(), Holder: Node,
	}
	if key.Kind == fill.KindReferrers {
		list := catalog.Referrers{Subject: digest.Digest(key.Reference), Freshness: f.Freshness()}
		if list.Subject == f.Image.Digest {
			list.Descriptors = []ocispec.Descriptor{f.Signature.Descriptor, f.Attestation.Descriptor}
		}
		publish.Referrers = []catalog.Referrers{list}
		return f.apply(publish)
	}
	found, ok := map[string]Content{"v1": f.Image, "fresh": f.Fresh, "large": f.Large}[key.Reference]
	if !ok {
		absence := catalog.Absence{Kind: catalog.AbsentTag, Reference: key.Reference, Freshness: f.Freshness()}
		_, err := f.apply(catalog.RecordAbsence{
			Tenant: key.Tenant, Repository: key.Repository, Absences: []catalog.Absence{absence},
		})
		if err != nil {
			return 0, err
		}
		return 0, errdef.New(errdef.NotFound, "the upstream has no tag %s", key.Reference)
	}
	if err := f.hold(found); err != nil {
		return 0, err
	}
	publish.Blobs = []ocispec.Descriptor{found.Descriptor}
	publish.Manifests = []catalog.Manifest{{Descriptor: found.Descriptor}}
	publish.Tags = []catalog.TagUpdate{
		{Name: reference.Tag(key.Reference), Descriptor: found.Descriptor, Freshness: f.Freshness()},
	}
	return f.apply(publish)
}

// Fetch implements registry.Fill.
func (u *Upstream) Fetch(ctx context.Context, key fill.ContentKey, offset int64) (*fill.Stream, error) {
	if err := u.request(ctx); err != nil {
		return nil, err
	}
	f := u.fixture
	served := []Content{f.Image, f.Signature, f.Attestation, f.Fresh, f.Large}
	if key.Kind == fill.ContentBlob {
		served = []Content{f.Layer, f.Lost}
	}
	at := slices.IndexFunc(served, func(c Content) bool { return c.Digest == key.Digest })
	if at < 0 {
		return nil, errdef.New(errdef.NotFound, "the upstream has no content %s", key.Digest)
	}
	found := served[at]
	rest := found.Bytes[min(offset, found.Size):]
	return &fill.Stream{ReadCloser: io.NopCloser(bytes.NewReader(rest)), Descriptor: found.Descriptor}, nil
}
