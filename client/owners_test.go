package client_test

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/internal/ownership"
	registryv1 "github.com/ocistern/ocistern/internal/proto/ocistern/registry/v1"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/testnode"
)

// named makes the nodes of a fixture say who they are, and returns the ids.
func (f *fixture) named() []string {
	var ids []string
	for i, node := range f.nodes {
		ids = append(ids, fmt.Sprintf("id%d", i))
		node.SetStatus(&registryv1.GetStatusResponse{Leader: "id0", Node: &registryv1.Member{Id: ids[i]}})
	}
	return ids
}

// owner returns the node that owns content.
func (f *fixture) owner(key ownership.Key, ids []string) *testnode.Node {
	first := ownership.Rank(key, ids)[0]
	for i, id := range ids {
		if id == first {
			return f.nodes[i]
		}
	}
	return nil
}

func (f *fixture) imageKey() ownership.Key {
	return ownership.Manifest(reference.DefaultTenant, repositoryName, f.image.Digest)
}

func blobKey(dgst digest.Digest) ownership.Key {
	return ownership.Blob(reference.DefaultTenant, repositoryName, dgst)
}

// envelope is a small blob, that of a signature.
func (f *fixture) envelope(i int) ocispec.Descriptor {
	return descriptorOf("application/jose+json", fmt.Appendf(nil, "signature %d of %s", i, f.image.Digest))
}

func read(t *testing.T, from *client.Repository, want ocispec.Descriptor) {
	t.Helper()
	content, err := from.Fetch(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if err := content.Close(); err != nil {
		t.Error(err)
	}
}

func count(node *testnode.Node, method string) (calls int) {
	for _, call := range node.Calls() {
		if call.Method == method {
			calls++
		}
	}
	return calls
}

// Content is asked for at the node that would fetch it, whichever node the client is at; everything else stays there.
func TestContentIsAskedOfItsOwner(t *testing.T) {
	f := newFixture(t, 5)
	ids := f.named()
	c, repository := f.open(t)
	c.StatusAll(t.Context())
	owners := map[*testnode.Node]bool{}
	for name, step := range map[string]struct {
		method string
		key    ownership.Key
		read   func() (io.ReadCloser, error)
	}{
		"layer": {"FetchBlob", blobKey(f.layerDescriptor().Digest), func() (io.ReadCloser, error) {
			return repository.Fetch(t.Context(), f.layerDescriptor())
		}},
		"envelope": {"FetchBlob", blobKey(f.envelope(0).Digest), func() (io.ReadCloser, error) {
			return repository.Fetch(t.Context(), f.envelope(0))
		}},
		"manifest": {"FetchManifest", f.imageKey(), func() (io.ReadCloser, error) { return repository.Fetch(t.Context(), f.image) }},
		"manifest by reference": {"FetchManifest", f.imageKey(), func() (io.ReadCloser, error) {
			_, content, err := repository.FetchReference(t.Context(), f.image.Digest.String())
			return content, err
		}},
	} {
		owner, before := f.owner(step.key, ids), f.calls(step.method)
		owners[owner] = true
		here := count(owner, step.method)
		content, err := step.read()
		if err != nil {
			t.Fatal(err)
		}
		if err := content.Close(); err != nil {
			t.Error(err)
		}
		if count(owner, step.method) != here+1 || f.calls(step.method) != before+1 {
			t.Errorf("%s: the owner was asked %d times and all nodes %d times, want once", name,
				count(owner, step.method)-here, f.calls(step.method)-before)
		}
		if _, err := repository.Resolve(t.Context(), "v1"); err != nil {
			t.Fatal(err)
		}
	}
	if len(owners) == 1 {
		t.Fatal("all content has one owner: nothing is seen here")
	}
	busy := 0
	for _, node := range f.nodes {
		if count(node, "Resolve") > 0 {
			busy++
		}
	}
	if busy != 1 {
		t.Errorf("%d nodes were asked for the tag, want one", busy)
	}
}

// A client learns who the nodes are from the first time on that it asks for content.
func TestOwnersAreLearned(t *testing.T) {
	f := newFixture(t, 3)
	ids := f.named()
	_, repository := f.open(t)
	owners := map[*testnode.Node]bool{}
	for i := range 3 {
		owners[f.owner(blobKey(f.envelope(i).Digest), ids)] = true
	}
	if len(owners) == 1 {
		t.Fatal("all envelopes have one owner: nothing is seen here")
	}
	learned := func() bool {
		atOwner := 0
		for i := range 3 {
			owner := f.owner(blobKey(f.envelope(i).Digest), ids)
			before := count(owner, "FetchBlob")
			read(t, repository, f.envelope(i))
			atOwner += count(owner, "FetchBlob") - before
		}
		return atOwner == 3
	}
	for ctx := within(t, time.Minute); !learned(); {
		if ctx.Err() != nil {
			t.Fatal("content is not asked for at its owners")
		}
	}
}

// A node that hangs costs one caller its patience, once, also when it goes on saying who it is.
func TestOwnerThatHangs(t *testing.T) {
	f := newFixture(t, 3)
	ids := f.named()
	c, repository := f.open(t, client.WithAttemptTimeout(time.Second))
	c.StatusAll(t.Context())
	owner := f.owner(blobKey(f.envelope(0).Digest), ids)
	owner.Intercept(func(ctx context.Context, call testnode.Call) error {
		if call.Method == "GetStatus" {
			return nil
		}
		return testnode.Hanging(ctx, call)
	})
	for range 20 {
		read(t, repository, f.envelope(0))
	}
	if asked := count(owner, "FetchBlob"); asked != 1 {
		t.Errorf("the node that hangs was asked %d times, want once", asked)
	}
}
