package catalog_test

import (
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/fsm/catalog/catalogtest"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// TestRandomCommands holds, through many random histories, what must always hold: a refused command changes nothing,
// what is derived equals a recount, and a copy restored from a snapshot goes on exactly as the original does.
func TestRandomCommands(t *testing.T) {
	for seed := range uint64(8) {
		original, restored := catalog.New(), catalog.New()
		commands := catalogtest.NewCommands(seed)
		refused := 0
		for index := catalog.LogIndex(1); index <= 300; index++ {
			before := original.Snapshot()
			entry := catalog.Entry{Index: index, Command: commands.Next()}
			err := original.Apply(entry)[0].Err
			if copyErr := restored.Apply(entry)[0].Err; errdef.ReasonOf(err) != errdef.ReasonOf(copyErr) {
				t.Fatalf("seed %d, entry %d: the original says %v, its copy %v", seed, index, err, copyErr)
			}
			if err != nil {
				refused++
				if refused%10 == 0 && digestOf(before) != digestOf(original.Snapshot()) {
					t.Fatalf("seed %d: entry %d was refused (%v) and changed the catalog", seed, index, err)
				}
			}
			if index%30 == 0 {
				restored = checkCopy(t, original.Snapshot(), restored.Snapshot())
			}
		}
		if refused == 0 || refused > 150 {
			t.Errorf("seed %d: %d of 300 commands were refused; the test has lost its meaning", seed, refused)
		}
	}
}

// checkCopy compares an original with a copy that was restored some commands ago, and returns a new copy.
func checkCopy(t *testing.T, original, copied *catalog.Snapshot) *catalog.Catalog {
	t.Helper()
	checkDerived(t, original)
	checkDerived(t, copied)
	if digestOf(original) != digestOf(copied) {
		t.Fatalf("at index %d the copy has gone another way than the original", original.Index())
	}
	restored, err := restoredFrom(original)
	if err != nil {
		t.Fatal(err)
	}
	if digestOf(original) != digestOf(restored.Snapshot()) {
		t.Fatalf("at index %d the restored copy differs", original.Index())
	}
	return restored
}

// place is one tenant's repository, and a digest in it.
type place struct {
	tenant     reference.Tenant
	repository reference.Repository
	digest     digest.Digest
}

// checkDerived recounts from the records what the catalog derives from them.
func checkDerived(t *testing.T, s *catalog.Snapshot) {
	t.Helper()
	links := map[digest.Digest]int64{}
	pushed := map[place][]digest.Digest{} // by subject
	for record := range s.Records() {
		switch {
		case record.Link != nil:
			links[record.Link.Digest]++
		case record.Manifest != nil && record.Manifest.Source == catalog.SourcePushed && record.Manifest.Subject != "":
			at := place{record.Tenant, record.Repository, record.Manifest.Subject}
			pushed[at] = append(pushed[at], record.Manifest.Descriptor.Digest)
		case record.Tag != nil && len(record.Tag.History) > catalog.MaxTagHistory:
			t.Fatalf("tag %s has %d former targets", record.Tag.Name, len(record.Tag.History))
		}
	}
	checkBlobs(t, s, links)
	for at, referrers := range pushed {
		list, _ := s.Referrers(at.tenant, at.repository, at.digest)
		for _, referrer := range referrers {
			has := func(desc ocispec.Descriptor) bool { return desc.Digest == referrer }
			if !slices.ContainsFunc(list.Descriptors, has) {
				t.Fatalf("index %d: %s is missing among the referrers of %s", s.Index(), referrer, at.digest)
			}
		}
	}
}

func checkBlobs(t *testing.T, s *catalog.Snapshot, links map[digest.Digest]int64) {
	t.Helper()
	blobs := 0
	for blob := range s.Blobs() {
		blobs++
		if blob.Links != links[blob.Digest] {
			t.Fatalf("index %d: %s has %d links, counted %d", s.Index(), blob.Digest, links[blob.Digest], blob.Links)
		}
		if !slices.IsSorted(blob.Holders) || len(slices.Compact(slices.Clone(blob.Holders))) != len(blob.Holders) {
			t.Fatalf("index %d: holders %v of %s are no sorted set", s.Index(), blob.Holders, blob.Digest)
		}
		if blob.Links == 0 && len(blob.Holders) == 0 {
			t.Fatalf("index %d: nothing refers to %s", s.Index(), blob.Digest)
		}
		delete(links, blob.Digest)
	}
	if len(links) > 0 || blobs != s.Stats().Blobs {
		t.Fatalf("index %d: links without a blob: %v; %d blobs, %+v", s.Index(), links, blobs, s.Stats())
	}
}

// TestDeterminism feeds two catalogs the same commands, in batches of different sizes, and plants the bugs that a
// comparison of digests must detect: a command that one of them skips, and two that it applies in the other order.
func TestDeterminism(t *testing.T) {
	var entries []catalog.Entry
	commands := catalogtest.NewCommands(7)
	for index := range catalog.LogIndex(300) {
		entries = append(entries, catalog.Entry{Index: index + 1, Command: commands.Next()})
	}
	hold := catalog.AddHolder{Node: "n9", Digests: []digest.Digest{someBlob(t, entries)}}
	last := catalog.Entry{Index: 301, Command: hold}
	entries = append(entries, last)
	want := digestAfter(entries, 1)
	if got := digestAfter(entries, 50); got != want {
		t.Errorf("batches of 50 give %s, single entries %s", got, want)
	}
	if got := digestAfter(entries[:len(entries)-1], 1); got == want {
		t.Error("a skipped command goes unnoticed")
	}
	drop := catalog.Entry{Index: 302, Command: catalog.RemoveHolder{Node: "n9", All: true}}
	if digestAfter(append(slices.Clone(entries), drop), 1) ==
		digestAfter(append(slices.Clone(entries[:len(entries)-1]), drop, last), 1) {
		t.Error("commands in another order go unnoticed")
	}
}

func digestAfter(entries []catalog.Entry, batch int) digest.Digest {
	cat := catalog.New()
	for chunk := range slices.Chunk(entries, batch) {
		cat.Apply(chunk...)
	}
	return digestOf(cat.Snapshot())
}

func someBlob(t *testing.T, entries []catalog.Entry) digest.Digest {
	t.Helper()
	cat := catalog.New()
	cat.Apply(entries...)
	for blob := range cat.Snapshot().Blobs() {
		return blob.Digest
	}
	t.Fatal("no blobs after random commands")
	return ""
}
