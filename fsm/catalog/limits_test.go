package catalog_test

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// TestTagHistoryIsBounded moves a tag more often than its history may grow.
func TestTagHistoryIsBounded(t *testing.T) {
	cat := catalog.New()
	target := func(i int) ocispec.Descriptor {
		return ocispec.Descriptor{Digest: digest.FromString(fmt.Sprint(i)), Size: 1}
	}
	const moves = catalog.MaxTagHistory + 10
	for i := range moves {
		publish := catalog.Publish{
			Tenant: "default", Repository: "up.test/app", Source: catalog.SourceUpstream,
			Tags: []catalog.TagUpdate{{Name: "v1", Descriptor: target(i)}},
		}
		if err := cat.Apply(catalog.Entry{Index: catalog.LogIndex(i + 1), Command: publish})[0].Err; err != nil {
			t.Fatal(err)
		}
	}
	tag, _ := cat.Snapshot().Tag("default", "up.test/app", "v1")
	oldest, newest := tag.History[0], tag.History[len(tag.History)-1]
	if len(tag.History) != catalog.MaxTagHistory ||
		oldest.Digest != target(moves-1-catalog.MaxTagHistory).Digest || newest.Digest != target(moves-2).Digest {
		t.Errorf("%d former targets, from %s to %s", len(tag.History), oldest.Digest, newest.Digest)
	}
}

// TestCommandsAreBounded refuses commands that carry too many items, whatever the items.
func TestCommandsAreBounded(t *testing.T) {
	digests := make([]digest.Digest, catalog.MaxCommandItems+1)
	descriptors := make([]ocispec.Descriptor, len(digests))
	for name, command := range map[string]catalog.Command{
		"publish": catalog.Publish{
			Tenant: "default", Repository: "app", Source: catalog.SourcePushed,
			Referrers: []catalog.Referrers{{Descriptors: descriptors}},
		},
		"absence": catalog.RecordAbsence{
			Tenant: "default", Repository: "app", Absences: make([]catalog.Absence, len(digests)),
		},
		"add":    catalog.AddHolder{Node: "n1", Digests: digests},
		"remove": catalog.RemoveHolder{Node: "n1", Digests: digests},
	} {
		err := catalog.New().Apply(catalog.Entry{Index: 1, Command: command})[0].Err
		if errdef.ReasonOf(err) != errdef.CommandInvalid {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestRemovedNodeKeepsCommand shows that applying RemoveHolder does not write into the command that raft's log and
// other readers still hold.
func TestRemovedNodeKeepsCommand(t *testing.T) {
	cat := catalog.New()
	blob := ocispec.Descriptor{Digest: digest.FromString("b"), Size: 1}
	cat.Apply(catalog.Entry{Index: 1, Command: catalog.Publish{
		Tenant: "default", Repository: "app", Source: catalog.SourcePushed, Holder: "n1", Blobs: []ocispec.Descriptor{blob},
	}})
	backing := []digest.Digest{"first", "second"}
	cat.Apply(catalog.Entry{Index: 2, Command: catalog.RemoveHolder{Node: "n1", Digests: backing[:1], All: true}})
	if backing[1] != "second" {
		t.Errorf("the command's backing array now holds %s", backing[1])
	}
	if known, _ := cat.Snapshot().Blob(blob.Digest); len(known.Holders) != 0 {
		t.Errorf("holders %v", known.Holders)
	}
}
