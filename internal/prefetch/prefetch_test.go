package prefetch_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
	"github.com/ocistern/ocistern/internal/registry/registrytest"
)

// image is an image v1 with a signature and an attestation, which is signed too.
func image() *tree {
	tr := newTree()
	root := tr.manifest("image", nil, tr.blob("layer", "of the image"))
	tr.tags["v1"] = root
	tr.manifest("signature", &root, tr.blob("envelope", "of the signature"))
	attestation := tr.manifest("attestation", &root, tr.blob("predicate", strings.Repeat("large", 1000)))
	countersigned := tr.manifest("countersignature", &attestation, tr.blob("counter envelope", "of the countersignature"))
	tr.manifest("timestamp", &countersigned, tr.blob("token", "of the timestamp"))
	return tr
}

func TestWalk(t *testing.T) {
	atDepth1 := []string{
		"blob envelope", "manifest attestation", "manifest signature", "referrers image",
	}
	atDepth2 := append([]string{
		"blob counter envelope", "manifest countersignature", "referrers attestation", "referrers signature",
	}, atDepth1...)
	atDepth3 := append([]string{"blob token", "manifest timestamp", "referrers countersignature"}, atDepth2...)
	for depth, want := range [][]string{1: atDepth1, 2: atDepth2, 3: atDepth3} {
		if depth == 0 {
			continue
		}
		slices.Sort(want)
		a := newAhead(t, image(), depth)
		walk := a.resolve(t, "v1")
		asked := slices.DeleteFunc(a.takeAsked(t), func(name string) bool { return name == "tag v1" })
		if !slices.Equal(asked, want) || walk.Err != nil || walk.Objects != len(want) {
			t.Errorf("depth %d: %+v\nasked %q\n want %q", depth, walk, asked, want)
		}
	}
}

// Prefetching off is the registry inside, whole; so it is for what was pushed here, and for what was known.
func TestAnswersAreThoseOfTheRegistryInside(t *testing.T) {
	registrytest.Run(t, func(t *testing.T, inner registry.Registry) registry.Registry {
		a := newAhead(t, newTree(), 0)
		a.Registry = inner
		return a.Ahead
	})
}

func TestNoWalk(t *testing.T) {
	tr := image()
	off, on := newAhead(t, tr, 0), newAhead(t, tr, 2)
	if _, err := off.Ahead.Resolve(t.Context(), caller(), named(reference.Reference{Tag: "v1"})); err != nil { // filled
		t.Fatal(err)
	}
	if _, err := on.Ahead.Resolve(t.Context(), caller(), named(reference.Reference{Tag: "v1"})); err != nil { // known by now
		t.Fatal(err)
	}
	pushed := registry.Target{Reference: reference.Reference{Repository: "team/app", Tag: "v2"}}
	tr.tags["v2"] = tr.manifest("pushed", nil)
	if _, err := on.Ahead.Resolve(t.Context(), caller(), pushed); err != nil {
		t.Fatal(err)
	}
	if _, err := on.Ahead.Resolve(t.Context(), caller(), named(reference.Reference{Tag: "unknown"})); errdef.ReasonOf(err) != errdef.NotFound {
		t.Fatal(err)
	}
	stale := newAhead(t, image(), 2)
	stale.stale = true
	if _, err := stale.Ahead.Resolve(t.Context(), caller(), named(reference.Reference{Tag: "v1"})); err != nil {
		t.Fatal(err)
	}
	stale.Close()
	off.Close()
	on.Close()
	if len(off.walks)+len(on.walks)+len(stale.walks) > 0 {
		t.Errorf("walked: %+v", <-on.walks)
	}
}

// Whatever a verifier asks first, the rest is fetched ahead.
func TestEachCallBeginsAWalk(t *testing.T) {
	for name, ask := range map[string]func(*ahead, ocispec.Descriptor) error{
		"manifest by tag": func(a *ahead, _ ocispec.Descriptor) error {
			_, err := a.Ahead.FetchManifest(t.Context(), caller(), named(reference.Reference{Tag: "v1"}))
			return err
		},
		"manifest by digest": func(a *ahead, root ocispec.Descriptor) error {
			_, err := a.Ahead.FetchManifest(t.Context(), caller(), named(reference.Reference{Digest: root.Digest}))
			return err
		},
		"referrers": func(a *ahead, root ocispec.Descriptor) error {
			_, err := a.Ahead.Referrers(t.Context(), caller(), named(reference.Reference{Digest: root.Digest}), "")
			return err
		},
	} {
		tr := image()
		a := newAhead(t, tr, 1)
		if err := ask(a, tr.tags["v1"]); err != nil {
			t.Fatal(err)
		}
		walk := a.ended(t)
		asked := a.takeAsked(t)
		for _, want := range []string{"referrers image", "manifest signature", "blob envelope"} {
			if !slices.Contains(asked, want) {
				t.Errorf("%s: %q was not asked for, but %q", name, want, asked)
			}
		}
		if name == "referrers" && slices.Contains(asked, "manifest image") {
			t.Errorf("%s: the image was fetched, which nobody has asked for", name)
		}
		if walk.Err != nil {
			t.Errorf("%s: %v", name, walk.Err)
		}
	}
}

// The blobs of an artifact are wanted when its manifest is.
func TestArtifactAsRoot(t *testing.T) {
	tr := image()
	signature := tr.referrers[tr.tags["v1"].Digest][0]
	a := newAhead(t, tr, 1)
	if _, err := a.Ahead.FetchManifest(t.Context(), caller(), named(reference.Reference{Digest: signature.Digest})); err != nil {
		t.Fatal(err)
	}
	a.ended(t)
	want := []string{"blob envelope", "manifest signature", "referrers signature"}
	if asked := a.takeAsked(t); !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

// The list of the root is renewed with it; those of signatures are not, once they are known.
func TestKnownListsAreLeftAlone(t *testing.T) {
	tr := image()
	a := newAhead(t, tr, 2)
	a.resolve(t, "v1")
	a.takeAsked(t)
	tr.mu.Lock()
	delete(tr.held, "tag v1") // not fresh any more
	delete(tr.held, "referrers image")
	tr.mu.Unlock()
	a.refreshed["referrers signature"] = true // if it is asked for, it is asked for at the upstream
	a.resolve(t, "v1")
	if asked, want := a.takeAsked(t), []string{"referrers image", "tag v1"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

// What cosign attaches under tags is fetched ahead where the cluster has seen such tags, and nowhere else.
func TestCosignTags(t *testing.T) {
	tr := newTree()
	attach := func(to ocispec.Descriptor, kind, name string) reference.Tag {
		tag := reference.Tag("sha256-" + to.Digest.Encoded() + kind)
		tr.tags[tag] = tr.manifest(name, nil, tr.blob(name+" payload", name))
		return tag
	}
	one, two := tr.manifest("one", nil), tr.manifest("two", nil)
	tr.tags["one"], tr.tags["two"] = one, two
	ofOne := attach(one, ".sig", "signature of one")
	ofTwo := attach(two, ".sig", "signature of two")
	a := newAhead(t, tr, 1)

	a.resolve(t, "one")
	if asked, want := a.takeAsked(t), []string{"referrers one", "tag one"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	a.resolve(t, ofOne)                                                       // by cosign
	want := []string{"blob signature of one payload", "tag " + string(ofOne)} // attachments have none of their own
	if asked := a.takeAsked(t); !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	a.resolve(t, "two")
	want = []string{"blob signature of two payload", "referrers two", "tag " + string(ofTwo), "tag two"}
	if asked := a.takeAsked(t); !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

// However many ask while a walk is under way, each object is asked for once; the caller does not wait for it, and may leave.
func TestWalksMeet(t *testing.T) {
	tr := image()
	tr.gate["referrers image"] = make(chan struct{})
	a := newAhead(t, tr, 2)
	ctx, leave := context.WithCancel(t.Context())
	root, err := a.Ahead.Resolve(ctx, caller(), named(reference.Reference{Tag: "v1"}))
	if err != nil {
		t.Fatal(err)
	}
	leave()
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			tr.mu.Lock()
			delete(tr.held, "manifest image") // as for one who joins the flight
			tr.mu.Unlock()
			_, err := a.Ahead.FetchManifest(t.Context(), caller(), named(reference.Reference{Digest: root.Descriptor.Digest}))
			if err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	close(tr.gate["referrers image"])
	if walk := a.ended(t); walk.Err != nil || walk.Objects == 0 {
		t.Errorf("%+v", walk)
	}
	a.Close()
	if len(a.walks) > 0 {
		t.Errorf("another walk: %+v", <-a.walks)
	}
	asked := slices.DeleteFunc(a.asked, func(name string) bool { return name == "manifest image" })
	slices.Sort(asked)
	if once := slices.Compact(slices.Clone(asked)); len(once) != len(asked) {
		t.Errorf("asked twice: %q", asked)
	}
}

func TestAWalkIsBounded(t *testing.T) {
	tr := newTree()
	root := tr.manifest("image", nil)
	tr.tags["v1"] = root
	for i := range 2000 {
		tr.manifest(fmt.Sprintf("signature %d", i), &root, tr.blob(fmt.Sprintf("envelope %d", i), fmt.Sprint(i)))
	}
	a := newAhead(t, tr, 2)
	if walk := a.resolve(t, "v1"); walk.Objects > 256 || walk.Objects < 200 || walk.Err != nil {
		t.Errorf("%+v", walk)
	}
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		reason errdef.Reason
		ends   bool
	}{
		{errdef.NotFound, false}, {errdef.ManifestTooLarge, false}, {errdef.UpstreamInvalid, false},
		{errdef.UpstreamThrottled, true}, {errdef.UpstreamUnavailable, true}, {errdef.NoQuorum, true}, {errdef.Internal, true},
	} {
		tr := image()
		tr.fail["manifest attestation"] = errdef.New(c.reason, "planted")
		a := newAhead(t, tr, 1)
		walk := a.resolve(t, "v1")
		if ended := walk.Err != nil; ended != c.ends || ended && errdef.ReasonOf(walk.Err) != c.reason {
			t.Errorf("%s: the walk ended with %v", c.reason, walk.Err)
		}
		if asked := a.takeAsked(t); !c.ends && !slices.Contains(asked, "blob envelope") {
			t.Errorf("%s: the other signature was not read: %q", c.reason, asked)
		}
	}
}

// untilWalking waits until all walks are at their gates, or wait behind others.
func untilWalking() {
	<-time.After(10 * time.Millisecond) // of the bubble
	synctest.Wait()
}

// The answer that begins a walk goes first.
func TestAnswerGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := image()
		gate := make(chan struct{})
		tr.gate["referrers image"] = gate
		a := newAhead(t, tr, 1)
		if _, err := a.Ahead.Resolve(t.Context(), caller(), named(reference.Reference{Tag: "v1"})); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if inside := tr.inside.Load(); inside != 0 {
			t.Errorf("the walk has asked %d times already", inside)
		}
		untilWalking()
		if inside := tr.inside.Load(); inside == 0 {
			t.Error("the walk has not begun")
		}
		close(gate)
		if walk := a.ended(t); walk.Err != nil {
			t.Error(walk.Err)
		}
	})
}

// All walks of an upstream together ask for no more at one time than a caller may have to wait behind.
func TestWalksShareTheirSlots(t *testing.T) {
	const walks, parallel = 10, 8
	synctest.Test(t, func(t *testing.T) {
		tr := newTree()
		gate := make(chan struct{})
		for i := range walks {
			root := tr.manifest(fmt.Sprintf("image %d", i), nil)
			tr.tags[reference.Tag(fmt.Sprintf("v%d", i))] = root
			for j := range 5 {
				name := fmt.Sprintf("signature %d of image %d", j, i)
				tr.manifest(name, &root)
				tr.gate["manifest "+name] = gate
			}
		}
		a := newAhead(t, tr, 1)
		for i := range walks {
			tag := reference.Tag(fmt.Sprintf("v%d", i))
			if _, err := a.Ahead.Resolve(t.Context(), caller(), named(reference.Reference{Tag: tag})); err != nil {
				t.Fatal(err)
			}
		}
		untilWalking()
		if inside := tr.inside.Load(); inside != parallel {
			t.Errorf("%d calls are under way, want %d", inside, parallel)
		}
		close(gate)
		for range walks {
			if walk := a.ended(t); walk.Err != nil {
				t.Error(walk.Err)
			}
		}
	})
}

// Too many walks at once are refused, not queued; when one has ended, there is room. What ends the node ends them all.
func TestTooManyWalks(t *testing.T) {
	const most = 32
	synctest.Test(t, func(t *testing.T) {
		tr := newTree()
		gate := make(chan struct{})
		for i := range most + 2 {
			tag, name := reference.Tag(fmt.Sprintf("v%d", i)), fmt.Sprintf("image %d", i)
			tr.tags[tag] = tr.manifest(name, nil)
			tr.gate["referrers "+name] = gate
		}
		tr.gate["referrers image 0"] = make(chan struct{})
		a := newAhead(t, tr, 1)
		ask := func(i int) {
			t.Helper()
			tag := reference.Tag(fmt.Sprintf("v%d", i))
			if _, err := a.Ahead.Resolve(t.Context(), caller(), named(reference.Reference{Tag: tag})); err != nil {
				t.Fatal(err)
			}
			untilWalking()
		}
		for i := range most {
			ask(i)
		}
		if len(a.refused) > 0 {
			t.Error("a walk was refused while there was room")
		}
		ask(most)
		if len(a.refused) != 1 {
			t.Fatalf("%d walks were refused, want 1", len(a.refused))
		}
		close(tr.gate["referrers image 0"])
		a.ended(t)
		ask(most + 1)
		if len(a.refused) != 1 {
			t.Error("a walk was refused when there was room again")
		}
		a.Close()
		for range most {
			if walk := a.ended(t); errdef.ReasonOf(walk.Err) != errdef.Canceled {
				t.Errorf("%+v", walk)
			}
		}
	})
}
