package fsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	logv1 "github.com/ocistern/ocistern/internal/proto/ocistern/log/v1"
	"github.com/ocistern/ocistern/internal/reference"
)

// goldenCatalog holds records of every kind.
func goldenCatalog(t testing.TB) *catalog.Catalog {
	t.Helper()
	cat := catalog.New()
	commands := goldenCommands()
	publish, ok := commands["publish"].(catalog.Publish)
	if !ok {
		t.Fatal("no golden publish command")
	}
	publish.Tags = publish.Tags[:1]
	moved := publish
	moved.Tags = slices.Clone(publish.Tags)
	moved.Tags[0].ExpectAbsent = false
	moved.Tags[0].Descriptor.Digest = publish.Blobs[1].Digest
	moved.Manifests = []catalog.Manifest{{Descriptor: moved.Tags[0].Descriptor}}
	for i, command := range []catalog.Command{
		commands["set-cluster"], publish, moved, commands["record-absence"], commands["add-holder"],
	} {
		entry := catalog.Entry{Index: catalog.LogIndex(i + 1), Command: command, Hash: sha256.Sum256([]byte{byte(i)})}
		if err := cat.Apply(entry)[0].Err; err != nil {
			t.Fatalf("%T: %v", command, err)
		}
	}
	return cat
}

func snapshotBytes(t testing.TB, s *catalog.Snapshot) *bytes.Buffer {
	t.Helper()
	var buffer bytes.Buffer
	if err := WriteSnapshot(&buffer, s); err != nil {
		t.Fatal(err)
	}
	return &buffer
}

// TestGoldenSnapshot reads what builds of each version wrote, and writes what they read: a cluster of level 1 writes
// snapshots that a build of level 1 restores.
func TestGoldenSnapshot(t *testing.T) {
	checkGoldenSnapshot(t, "snapshot.v1.pb", goldenCatalog(t).Snapshot(), 6)
	raised := goldenCatalog(t)
	raise(t, raised)
	checkGoldenSnapshot(t, "snapshot.v2.pb", raised.Snapshot(), 7)
	freshen(t, raised)
	checkGoldenSnapshot(t, "snapshot-freshness.v2.pb", raised.Snapshot(), 9)
	former := goldenCatalog(t)
	raise(t, former)
	recovered(t, former)
	checkGoldenSnapshot(t, "snapshot-formers.v2.pb", former.Snapshot(), 7)
}

// freshen adds what knows of upstreams: a tag that has moved and one that is gone, an invalidation, a backoff.
func freshen(t testing.TB, cat *catalog.Catalog) {
	t.Helper()
	const tenant, repository = reference.Tenant("default"), reference.Repository("ghcr.io/org/other")
	at := func(seconds int64) time.Time { return time.Unix(1_700_000_000+seconds, 0).UTC() }
	desc := func(text string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(text), Size: int64(len(text))}
	}
	observe := func(tag reference.Tag, target string, seconds int64) catalog.Publish {
		fresh := catalog.Freshness{Observed: at(seconds), FreshUntil: at(seconds + 60), StaleUntil: at(seconds + 600)}
		return catalog.Publish{
			Tenant: tenant, Repository: repository, Source: catalog.SourceUpstream, Time: at(seconds), Holder: "node-1", Seen: 7,
			Tags: []catalog.TagUpdate{{Name: tag, Descriptor: desc(target), Freshness: fresh}},
		}
	}
	gone := catalog.RecordAbsence{Tenant: tenant, Repository: repository, Absences: []catalog.Absence{{
		Kind: catalog.AbsentTag, Reference: "gone", Freshness: catalog.Freshness{Observed: at(3), FreshUntil: at(9), StaleUntil: at(9)},
	}}}
	backoff := catalog.Backoff{Upstream: "ghcr.io", Until: at(99), Reason: string(errdef.UpstreamThrottled), Node: "node-1"}
	for i, command := range []catalog.Command{
		observe("moved", "one", 0), observe("moved", "two", 1), observe("gone", "one", 2), gone,
		catalog.Invalidate{Tenant: tenant, Repository: repository}, catalog.SetBackoff{Backoff: backoff},
	} {
		if err := cat.Apply(catalog.Entry{Index: catalog.LogIndex(8 + i), Command: command})[0].Err; err != nil {
			t.Fatal(err)
		}
	}
}

// raise brings a golden catalog to level 2, where one request is applied and one refused.
func raise(t testing.TB, cat *catalog.Catalog) {
	t.Helper()
	untag := catalog.Untag{Tenant: "default", Repository: "ghcr.io/org/app", Name: "v9"}
	results := cat.Apply(
		catalog.Entry{Index: 6, Command: catalog.RaiseLevel{Level: catalog.LevelRequests}},
		catalog.Entry{Index: 7, Command: catalog.AddHolder{Node: "node-9"}, Request: catalog.Request{ID: catalog.RequestID{1}, Since: 6}},
		catalog.Entry{Index: 7, Command: untag, Request: catalog.Request{ID: catalog.RequestID{2}, Since: 5}},
	)
	if errdef.ReasonOf(results[2].Err) != errdef.NotFound {
		t.Fatal(results)
	}
}

// recovered tells a golden catalog of level 2 which clusters it was before.
func recovered(t testing.TB, cat *catalog.Catalog) {
	t.Helper()
	results := cat.Apply(
		catalog.Entry{Index: 9, Command: catalog.NoteFormers{ClusterIDs: []string{"01A", "01B"}}},
		catalog.Entry{Index: 10, Command: catalog.NoteFormers{ClusterIDs: []string{"01B", "01C"}}},
	)
	if got := cat.Snapshot().Formers(); !slices.Equal(got, []string{"01A", "01B", "01C"}) || results[1].Err != nil {
		t.Fatal(got, results)
	}
}

func checkGoldenSnapshot(t *testing.T, name string, original *catalog.Snapshot, wantKinds int) {
	t.Helper()
	written := snapshotBytes(t, original).Bytes()
	want := golden(t, name, written)
	if !bytes.Equal(written, want) {
		t.Errorf("writes\n%x, not\n%x", written, want)
	}
	restored := catalog.New()
	if err := restore(restored, bytes.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	got := restored.Snapshot()
	if digestOf(t, got) != digestOf(t, original) || !reflect.DeepEqual(got.Header(), original.Header()) {
		t.Error("restores another catalog")
	}
	kinds := map[protoreflect.Name]bool{}
	for record := range original.Records() {
		message, err := encodeRecord(record)
		if err != nil {
			t.Fatal(err)
		}
		reflected := message.ProtoReflect()
		kinds[reflected.WhichOneof(reflected.Descriptor().Oneofs().ByName("kind")).Name()] = true
	}
	if len(kinds) != wantKinds {
		t.Errorf("%s has only records of the kinds %v", name, slices.Collect(maps.Keys(kinds)))
	}
}

// TestDamagedSnapshots cuts the golden snapshot at every byte, and changes every byte: each must be refused and leave
// the catalog as it was.
func TestDamagedSnapshots(t *testing.T) {
	whole := readGolden(t, "snapshot.v1.pb")
	cat := goldenCatalog(t)
	if err := restore(cat, bytes.NewReader(whole)); err != nil {
		t.Fatal(err)
	}
	before := cat.Snapshot()
	refused := func(what string, damaged []byte) {
		t.Helper()
		if err := restore(cat, bytes.NewReader(damaged)); errdef.ReasonOf(err) != errdef.SnapshotInvalid {
			t.Errorf("%s: error %v", what, err)
		}
		if cat.Snapshot() != before {
			t.Fatalf("%s: the catalog was replaced", what)
		}
	}
	for i := range whole {
		refused("cut", whole[:i])
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x41
		refused("changed", damaged)
	}
	refused("longer", append(bytes.Clone(whole), 0))
	refused("twice", append(bytes.Clone(whole), whole...))
	refused("huge record", binary.AppendUvarint(nil, maxRecordBytes+1))
	refused("promise of much", binary.AppendUvarint(nil, maxRecordBytes))
}

// framed returns messages as a snapshot holds them, without a trailer.
func framed(t testing.TB, messages ...proto.Message) []byte {
	t.Helper()
	var buffer bytes.Buffer
	frames := &frameWriter{to: &buffer, sum: sha256.New()}
	for _, message := range messages {
		if err := frames.write(message); err != nil {
			t.Fatal(err)
		}
	}
	return buffer.Bytes()
}

// seal returns a snapshot with a right trailer behind it.
func seal(t testing.TB, snapshot []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(snapshot)
	trailer := &logv1.SnapshotTrailer{Records: uint64(max(frameCount(snapshot)-1, 0)), Checksum: sum[:]}
	return append(bytes.Clone(snapshot),
		framed(t, &logv1.SnapshotRecord{Kind: &logv1.SnapshotRecord_Trailer{Trailer: trailer}})...)
}

// frameCount counts the messages in a snapshot, as far as it has any.
func frameCount(snapshot []byte) int {
	count := 0
	for len(snapshot) > 0 {
		size, prefix := binary.Uvarint(snapshot)
		if prefix <= 0 || size > uint64(len(snapshot)-prefix) {
			break
		}
		snapshot = snapshot[prefix+int(size):]
		count++
	}
	return count
}

// TestUnknownSnapshots refuses what a newer version may write, although it is undamaged.
func TestUnknownSnapshots(t *testing.T) {
	header := func(version uint32, hash int) *logv1.SnapshotHeader {
		return &logv1.SnapshotHeader{Version: version, Index: 1, CommandHash: make([]byte, hash)}
	}
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1)
	extended := header(1, 32)
	extended.ProtoReflect().SetUnknown(unknown)
	if err := restore(catalog.New(), bytes.NewReader(seal(t, framed(t, header(1, 32))))); err != nil {
		t.Errorf("an empty catalog: %v", err)
	}
	for name, snapshot := range map[string][]byte{
		"newer version":     seal(t, framed(t, header(3, 32))),
		"without its level": seal(t, framed(t, header(2, 32))),
		"level to come":     seal(t, framed(t, withLevel(header(2, 32), 3))),
		"level too early":   seal(t, framed(t, withLevel(header(1, 32), 2))),
		"outcome of none":   seal(t, framed(t, withLevel(header(2, 32), 2), outcomeOf(nil))),
		"outcome twice":     seal(t, framed(t, withLevel(header(2, 32), 2), outcomeOf(make([]byte, 16)), outcomeOf(make([]byte, 16)))),
		"no version":        seal(t, framed(t, header(0, 32))),
		"short hash":        seal(t, framed(t, header(1, 31))),
		"field in header":   seal(t, framed(t, extended)),
		"record of no kind": seal(t, framed(t, header(1, 32), &logv1.SnapshotRecord{Tenant: "default"})),
		"no header":         seal(t, framed(t, &logv1.SnapshotRecord{Tenant: "default"})),
		"trailer as header": seal(t, nil),
	} {
		if err := restore(catalog.New(), bytes.NewReader(snapshot)); errdef.ReasonOf(err) != errdef.SnapshotInvalid {
			t.Errorf("%s: error %v", name, err)
		}
	}
	for record := range goldenCatalog(t).Snapshot().Records() {
		message, err := encodeRecord(record)
		if err != nil {
			t.Fatal(err)
		}
		eachMessage(message.ProtoReflect(), func(m protoreflect.Message) {
			m.SetUnknown(unknown)
			snapshot := seal(t, framed(t, header(1, 32), message))
			if err := restore(catalog.New(), bytes.NewReader(snapshot)); errdef.ReasonOf(err) != errdef.SnapshotInvalid {
				t.Errorf("a field more in %s: error %v", m.Descriptor().FullName(), err)
			}
			m.SetUnknown(nil)
		})
	}
}

func withLevel(header *logv1.SnapshotHeader, level uint32) *logv1.SnapshotHeader {
	header.FeatureLevel = level
	return header
}

func outcomeOf(id []byte) *logv1.SnapshotRecord {
	return &logv1.SnapshotRecord{Kind: &logv1.SnapshotRecord_Outcome{Outcome: &logv1.OutcomeRecord{RequestId: id}}}
}

// sink is a raft.SnapshotSink that fails after some bytes, or when closed.
type sink struct {
	bytes.Buffer
	room             int
	closing          error
	canceled, closed bool
}

func (s *sink) Write(p []byte) (int, error) {
	if len(p) > s.room {
		return 0, errors.New("disk full")
	}
	s.room -= len(p)
	return s.Buffer.Write(p)
}

func (s *sink) ID() string { return "test" }

func (s *sink) Cancel() error {
	s.canceled = true
	return nil
}

func (s *sink) Close() error {
	s.closed = true
	return s.closing
}

// TestPersist shows that a snapshot keeps the index at which it was captured, and what becomes of one that cannot be
// written.
func TestPersist(t *testing.T) {
	cat := goldenCatalog(t)
	machine := New(cat, Options{})
	captured, err := machine.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer captured.Release()
	want := cat.Snapshot()
	cat.Apply(catalog.Entry{Index: 99, Command: catalog.RemoveHolder{Node: "node-1", All: true}})

	good := &sink{room: 1 << 20}
	if err := captured.Persist(good); err != nil || !good.closed || good.canceled {
		t.Errorf("error %v, closed %v, canceled %v", err, good.closed, good.canceled)
	}
	if err := machine.Restore(io.NopCloser(&good.Buffer)); err != nil {
		t.Fatal(err)
	}
	if digestOf(t, cat.Snapshot()) != digestOf(t, want) || cat.Snapshot().Index() != want.Index() {
		t.Error("what was persisted is not what was captured")
	}

	full := &sink{room: 10}
	if err := captured.Persist(full); err == nil || full.closed || !full.canceled {
		t.Errorf("full: error %v, closed %v, canceled %v", err, full.closed, full.canceled)
	}
	unsynced := &sink{room: 1 << 20, closing: errors.New("fsync failed")}
	if err := captured.Persist(unsynced); err == nil {
		t.Error("an fsync that fails goes unnoticed")
	}
}

// FuzzRestore reads arbitrary snapshots, as they are and with a right trailer put behind them. It must never panic;
// what is refused leaves the catalog alone, and what is accepted can be written and read again.
func FuzzRestore(f *testing.F) {
	header := &logv1.SnapshotHeader{
		Version: 2, ClusterId: "c1", Index: 7, CommandHash: make([]byte, sha256.Size), FeatureLevel: 2, Forgotten: 3,
	}
	seeds := goldenCatalog(f)
	raise(f, seeds)
	for record := range seeds.Snapshot().Records() { // small seeds, for the fuzzer shortens them byte by byte
		message, err := encodeRecord(record)
		if err != nil {
			f.Fatal(err)
		}
		snapshot := framed(f, header, message)
		f.Add(snapshot, true)
		f.Add(seal(f, snapshot), false)
	}
	f.Fuzz(func(t *testing.T, snapshot []byte, sealing bool) {
		if sealing {
			snapshot = seal(t, snapshot)
		}
		cat := goldenCatalog(t)
		before := cat.Snapshot()
		if err := restore(cat, bytes.NewReader(snapshot)); err != nil {
			if errdef.ReasonOf(err) != errdef.SnapshotInvalid || cat.Snapshot() != before {
				t.Fatalf("error %v, or the catalog was replaced", err)
			}
			return
		}
		again := catalog.New()
		if err := restore(again, snapshotBytes(t, cat.Snapshot())); err != nil {
			t.Fatal(err)
		}
		if digestOf(t, again.Snapshot()) != digestOf(t, cat.Snapshot()) {
			t.Fatal("a restored catalog changes when it is written and restored again")
		}
	})
}
