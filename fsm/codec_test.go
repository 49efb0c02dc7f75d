package fsm

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/fsm/catalog/catalogtest"
	"github.com/ocistern/ocistern/internal/errdef"
	logv1 "github.com/ocistern/ocistern/internal/proto/ocistern/log/v1"
	"github.com/ocistern/ocistern/internal/reference"
)

var update = flag.Bool("update", false, "write the golden files that testdata lacks")

// goldenCommands has one command of each kind with every field set. Their files in testdata/command are what logs out
// there hold: they may be added to, never changed.
func goldenCommands() map[string]catalog.Command {
	at := func(seconds int64) time.Time { return time.Unix(1_700_000_000+seconds, 123).UTC() }
	fresh := catalog.Freshness{Observed: at(0), FreshUntil: at(60), StaleUntil: at(3600)}
	image, signature := digest.FromString("image"), digest.FromString("signature")
	layer := digest.SHA512.FromString("layer")
	desc := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: signature, Size: 733,
		ArtifactType: "application/vnd.cncf.notary.signature", Annotations: map[string]string{"b": "2", "a": "1", "c": "ü"},
		Platform: &ocispec.Platform{
			OS: "linux", Architecture: "arm", Variant: "v7", OSVersion: "1", OSFeatures: []string{"x", "y"},
		},
	}
	const tenant, repository = reference.Tenant("default"), reference.Repository("ghcr.io/org/app")
	return map[string]catalog.Command{
		"set-cluster": catalog.SetCluster{ClusterID: "01J000"},
		"publish": catalog.Publish{
			Tenant: tenant, Repository: repository, Source: catalog.SourcePushed, Time: at(1), Holder: "node-1",
			Blobs:     []ocispec.Descriptor{desc, {MediaType: "application/octet-stream", Digest: layer, Size: 1 << 33}},
			Manifests: []catalog.Manifest{{Descriptor: desc, Subject: image, Children: []ocispec.Descriptor{desc}}},
			Tags: []catalog.TagUpdate{
				{Name: "v1", Descriptor: desc, Freshness: fresh, ExpectAbsent: true},
				{Name: "v2", Descriptor: desc, Expect: layer},
			},
			Referrers: []catalog.Referrers{{Subject: image, Descriptors: []ocispec.Descriptor{desc}, Freshness: fresh}},
		},
		"record-absence": catalog.RecordAbsence{Tenant: tenant, Repository: repository, Absences: []catalog.Absence{
			{Kind: catalog.AbsentTag, Reference: "v9", Freshness: fresh},
			{Kind: catalog.AbsentManifest, Reference: image.String(), Freshness: fresh},
			{Kind: catalog.AbsentBlob, Reference: layer.String(), Freshness: catalog.Freshness{FreshUntil: at(9)}},
		}},
		"add-holder":      catalog.AddHolder{Node: "node-2", Digests: []digest.Digest{signature, layer}},
		"remove-holder":   catalog.RemoveHolder{Node: "node-2", Digests: []digest.Digest{layer}, All: true},
		"untag":           catalog.Untag{Tenant: tenant, Repository: repository, Name: "v1"},
		"delete-manifest": catalog.DeleteManifest{Tenant: tenant, Repository: repository, Digest: signature},
		"note-formers":    catalog.NoteFormers{ClusterIDs: []string{"01A", "01B"}},
		"raise-level":     catalog.RaiseLevel{Level: catalog.LevelRequests},
		"invalidate":      catalog.Invalidate{Tenant: tenant, Repository: repository, Below: true, Tag: "v1", Digest: image},
		"set-backoff": catalog.SetBackoff{Backoff: catalog.Backoff{
			Upstream: "ghcr.io", Until: at(9), Reason: "UPSTREAM_THROTTLED", Node: "node-1",
		}},
	}
}

// goldenFile is where a golden command lies: its name has the version of its kind.
func goldenFile(name string) string {
	version := 1
	switch name {
	case "raise-level", "invalidate", "set-backoff", "note-formers":
		version = 2
	}
	return filepath.Join("command", fmt.Sprintf("%s.v%d.pb", name, version))
}

// TestGoldenCommands reads what earlier builds of each version wrote, and writes what they read.
func TestGoldenCommands(t *testing.T) {
	for name, command := range goldenCommands() {
		t.Run(name, func(t *testing.T) {
			encoded, err := Encode(command)
			if err != nil {
				t.Fatal(err)
			}
			want := golden(t, goldenFile(name), encoded)
			if !bytes.Equal(encoded, want) {
				t.Errorf("encodes to\n%x, not to\n%x", encoded, want)
			}
			decoded, err := Decode(want)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(decoded, command) {
				t.Errorf("decodes to\n%+v, not to\n%+v", decoded, command)
			}
		})
	}
	kinds := (&logv1.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields().Len()
	if kinds != len(goldenCommands())+1 { // the batch has its own test
		t.Errorf("%d kinds of command, %d golden files: every kind needs one", kinds, len(goldenCommands())+1)
	}
}

// golden returns what a file in testdata holds. With -update it first writes the file if there is none.
func golden(t *testing.T, name string, content []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if _, err := os.Stat(path); *update && errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return readGolden(t, name)
}

func readGolden(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestRandomCommandsSurviveTheLog encodes and decodes many commands.
func TestRandomCommandsSurviveTheLog(t *testing.T) {
	commands := catalogtest.NewCommands(1)
	for range 2000 {
		command := commands.Next()
		encoded, err := Encode(command)
		if err != nil {
			t.Fatalf("%+v: %v", command, err)
		}
		decoded, err := Decode(encoded)
		if err != nil || !reflect.DeepEqual(decoded, command) {
			t.Fatalf("error %v,\n got %+v\nwant %+v", err, decoded, command)
		}
	}
}

// TestEncodeRefuses holds that nothing enters the log that would stop the nodes that read it.
func TestEncodeRefuses(t *testing.T) {
	for name, command := range map[string]catalog.Command{
		"no command":          nil,
		"pointer":             &catalog.SetCluster{ClusterID: "c1"},
		"not UTF-8":           catalog.SetCluster{ClusterID: "\xff"},
		"unknown source":      catalog.Publish{Source: 77},
		"unknown kind":        catalog.RecordAbsence{Absences: []catalog.Absence{{Kind: 77}}},
		"year 10000":          catalog.Publish{Time: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"more than the bound": catalog.SetCluster{ClusterID: strings.Repeat("x", MaxCommandBytes)},
	} {
		if encoded, err := Encode(command); errdef.ReasonOf(err) != errdef.CommandInvalid || encoded != nil {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestDecodeRefuses holds that whatever is not understood whole is refused.
func TestDecodeRefuses(t *testing.T) {
	marshal := func(m *logv1.Command) []byte {
		encoded, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return encoded
	}
	publish := func(p *logv1.Publish) []byte {
		return marshal(&logv1.Command{Version: 1, Kind: &logv1.Command_Publish{Publish: p}})
	}
	for name, encoded := range map[string][]byte{
		"nothing":             nil,
		"no message":          []byte("\xffrubbish"),
		"no version":          marshal(&logv1.Command{Kind: &logv1.Command_Untag{Untag: &logv1.Untag{}}}),
		"newer version":       marshal(&logv1.Command{Version: 2, Kind: &logv1.Command_Untag{Untag: &logv1.Untag{}}}),
		"older than its kind": marshal(&logv1.Command{Version: 1, Kind: &logv1.Command_RaiseLevel{RaiseLevel: &logv1.RaiseLevel{Level: 2}}}),
		"level to come":       marshal(&logv1.Command{Version: 2, Kind: &logv1.Command_RaiseLevel{RaiseLevel: &logv1.RaiseLevel{Level: 3}}}),
		"batch":               Pack([]Request{{Command: marshal(&logv1.Command{Version: 1, Kind: &logv1.Command_Untag{Untag: &logv1.Untag{}}})}}),
		"no kind":             marshal(&logv1.Command{Version: 1}),
		"unknown kind":        protowire.AppendBytes(protowire.AppendTag([]byte{8, 1}, 99, protowire.BytesType), nil),
		"unknown source":      publish(&logv1.Publish{Source: 3}),
		"too long":            make([]byte, MaxCommandBytes+1),
	} {
		if command, err := Decode(encoded); errdef.ReasonOf(err) != errdef.CommandUnknown || command != nil {
			t.Errorf("%s: error %v, command %v", name, err, command)
		}
	}
}

// TestUnknownFieldsAreRefused plants a field of a newer version into each message of each golden command in turn.
func TestUnknownFieldsAreRefused(t *testing.T) {
	for name := range goldenCommands() {
		message := &logv1.Command{}
		if err := proto.Unmarshal(readGolden(t, goldenFile(name)), message); err != nil {
			t.Fatal(err)
		}
		eachMessage(message.ProtoReflect(), func(m protoreflect.Message) {
			m.SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
			encoded, err := proto.Marshal(message)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Decode(encoded); errdef.ReasonOf(err) != errdef.CommandUnknown {
				t.Errorf("%s: a field more in %s: error %v", name, m.Descriptor().FullName(), err)
			}
			m.SetUnknown(nil)
		})
	}
}

// eachMessage visits m and every message in it, except the entries of maps, which have no fields to add.
func eachMessage(m protoreflect.Message, visit func(protoreflect.Message)) {
	visit(m)
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.Message() == nil || field.IsMap():
		case field.IsList():
			for i := range value.List().Len() {
				eachMessage(value.List().Get(i).Message(), visit)
			}
		default:
			eachMessage(value.Message(), visit)
		}
		return true
	})
}

// FuzzDecode holds that a decoder never panics, and that what it accepts can be encoded and decoded to the same
// command.
func FuzzDecode(f *testing.F) {
	for _, command := range goldenCommands() {
		encoded, err := Encode(command)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encoded)
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		command, err := Decode(encoded)
		if err != nil {
			if errdef.ReasonOf(err) != errdef.CommandUnknown || command != nil {
				t.Fatalf("error %v, command %v", err, command)
			}
			return
		}
		again, err := Encode(command)
		if err != nil {
			t.Fatalf("%+v was decoded and cannot be encoded: %v", command, err)
		}
		decoded, err := Decode(again)
		if err != nil || !reflect.DeepEqual(decoded, command) {
			t.Fatalf("error %v,\n got %+v\nwant %+v", err, decoded, command)
		}
		catalog.New().Apply(catalog.Entry{Index: 1, Command: command}) // must not panic
	})
}
