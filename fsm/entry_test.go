package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/fsm/catalog/catalogtest"
	"github.com/ocistern/ocistern/internal/errdef"
	logv1 "github.com/ocistern/ocistern/internal/proto/ocistern/log/v1"
)

// goldenBatch has a request of every shape: named, named before anything was applied, and submitted once.
func goldenBatch(t testing.TB) ([]Request, []decoded) {
	t.Helper()
	commands := goldenCommands()
	named := []decoded{
		{commands["publish"], catalog.Request{ID: catalog.RequestID{1, 2, 3, 15: 16}, Since: 1 << 40}},
		{commands["untag"], catalog.Request{ID: catalog.RequestID{15: 1}}},
		{commands["add-holder"], catalog.Request{}},
		{commands["raise-level"], catalog.Request{}},
	}
	requests := make([]Request, len(named))
	for i, one := range named {
		requests[i] = Request{Request: one.request, Command: encode(t, one.command)}
	}
	return requests, named
}

func encode(t testing.TB, command catalog.Command) []byte {
	t.Helper()
	encoded, err := Encode(command)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// What is packed by hand is what protobuf writes, and what the golden file holds.
func TestGoldenBatch(t *testing.T) {
	requests, want := goldenBatch(t)
	packed := Pack(requests)
	if kept := golden(t, "command/batch.v2.pb", packed); !bytes.Equal(packed, kept) {
		t.Errorf("packs\n%x, not\n%x", packed, kept)
	}
	message := &logv1.Command{}
	if err := proto.Unmarshal(packed, message); err != nil {
		t.Fatal(err)
	}
	again, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil || !bytes.Equal(again, packed) {
		t.Errorf("protobuf writes\n%x (%v), not\n%x", again, err, packed)
	}
	size := 0
	for _, r := range requests {
		size += r.PackedSize()
	}
	if len(packed) > size || cap(packed) > size+2*requestOverhead {
		t.Errorf("packed in %d bytes of %d, said to be at most %d", len(packed), cap(packed), size)
	}
	d := newDecoder()
	if got, err := d.entry(packed); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("error %v, decodes to\n%+v, not to\n%+v", err, got, want)
	}
}

// The largest command can be packed, and what is larger is no entry.
func TestLargestEntry(t *testing.T) {
	d := newDecoder()
	full := func(bytes int) []byte {
		command := &logv1.Command{Version: 1, Kind: &logv1.Command_SetCluster{SetCluster: &logv1.SetCluster{}}}
		padding := bytes - proto.Size(command)
		command.GetSetCluster().ClusterId = string(make([]byte, padding-8))
		encoded, err := proto.Marshal(command)
		if err != nil {
			t.Fatal(err)
		}
		return encoded
	}
	largest := Request{Request: catalog.Request{ID: catalog.RequestID{1}, Since: 1 << 63}, Command: full(MaxCommandBytes)}
	if _, err := Decode(largest.Command); err != nil || len(largest.Command) < MaxCommandBytes-16 {
		t.Fatalf("%d bytes: %v", len(largest.Command), err)
	}
	if _, err := d.entry(Pack([]Request{largest})); err != nil {
		t.Error(err)
	}
	if _, err := d.entry(make([]byte, maxEntryBytes+1)); errdef.ReasonOf(err) != errdef.CommandUnknown {
		t.Errorf("error %v", err)
	}
}

// A batch is understood whole or not at all.
func TestBadBatches(t *testing.T) {
	requests, _ := goldenBatch(t)
	message := &logv1.Command{}
	if err := proto.Unmarshal(Pack(requests), message); err != nil {
		t.Fatal(err)
	}
	d := newDecoder()
	refused := func(what string) {
		t.Helper()
		encoded, err := proto.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		if commands, err := d.entry(encoded); errdef.ReasonOf(err) != errdef.CommandUnknown || commands != nil {
			t.Errorf("%s: error %v", what, err)
		}
	}
	eachMessage(message.ProtoReflect(), func(m protoreflect.Message) {
		m.SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
		refused("a field more in " + string(m.Descriptor().FullName()))
		m.SetUnknown(nil)
	})
	whole := message.GetBatch().GetRequests()
	message.Version = 1
	refused("of version 1")
	message.Version = 3
	refused("of version 3")
	message.Version = 2
	message.GetBatch().Requests = nil
	refused("empty")
	message.GetBatch().Requests = append(slices.Clone(whole), &logv1.Request{})
	refused("without a command")
	message.GetBatch().Requests = append(slices.Clone(whole), &logv1.Request{Id: []byte{1}, Command: whole[0].GetCommand()})
	refused("with a short id")
	inner := proto.CloneOf(message)
	inner.GetBatch().Requests = whole
	message.GetBatch().Requests = append(slices.Clone(whole), &logv1.Request{Command: inner})
	refused("in a batch")
}

// batchedLogs returns random commands as requests in batches of random sizes, some of them repeated.
func batchedLogs(t *testing.T, seed uint64) []*raft.Log {
	t.Helper()
	commands := catalogtest.NewCommands(seed)
	logs := []*raft.Log{{Index: 1, Data: encode(t, catalog.RaiseLevel{Level: catalog.LevelRequests})}}
	var sent []Request
	for i := range 60 {
		var batch []Request
		for j := range 1 + (i*7)%9 {
			if len(sent) > 5 && (i+j)%4 == 0 {
				batch = append(batch, sent[len(sent)-5])
				continue
			}
			id := catalog.RequestID{byte(i), byte(j), 1}
			batch = append(batch, Request{
				Request: catalog.Request{ID: id, Since: catalog.LogIndex(i)}, Command: encode(t, commands.Next()),
			})
			sent = append(sent, batch[len(batch)-1])
		}
		logs = append(logs, &raft.Log{Index: uint64(i + 2), Data: Pack(batch)})
	}
	return logs
}

// One log gives one catalog, however raft cuts it, and each command of an entry gets its own result. A machine that
// applies repeated requests again is found out.
func TestBatchesAgree(t *testing.T) {
	logs := batchedLogs(t, 3)
	want := replay(logs, 1)
	for _, batch := range []int{7, len(logs)} {
		got := replay(logs, batch)
		if got.CommandHash() != want.CommandHash() || digestOf(t, got) != digestOf(t, want) {
			t.Errorf("batches of %d lead to another catalog", batch)
		}
	}
	planted := catalog.New(catalog.WithoutOutcomes())
	New(planted, Options{}).ApplyBatch(logs)
	if digestOf(t, planted.Snapshot()) == digestOf(t, want) {
		t.Error("a machine that remembers nothing goes unnoticed")
	}
	requests, commands := goldenBatch(t)
	told := 0
	machine := New(catalog.New(), Options{Applied: func(entries []catalog.Entry) {
		for _, entry := range entries {
			told++
			if entry.Index != 9 {
				t.Errorf("told of index %d", entry.Index)
			}
		}
	}})
	named := Request{Request: catalog.Request{ID: catalog.RequestID{7}}, Command: encode(t, catalog.SetCluster{ClusterID: "c1"})}
	again := append(slices.Clone(requests), requests[1], named, named) // one that is refused, and one that is applied
	results, ok := machine.Apply(&raft.Log{Index: 9, Data: Pack(again)}).([]catalog.Result)
	if !ok || len(results) != len(again) {
		t.Fatalf("response %v", results)
	}
	for i, want := range []errdef.Reason{errdef.TagConflict, errdef.NotFound, "", "", errdef.NotFound, "", ""} {
		if errdef.ReasonOf(results[i].Err) != want || results[i].Index != 9 {
			t.Errorf("result %d of %T is %+v, want %q", i, commands[min(i, 3)].command, results[i], want)
		}
	}
	if told != 3 {
		t.Errorf("told of %d commands, 3 were applied", told)
	}
}

// The level is on record before an entry of it is applied, and when a snapshot has brought it. When it cannot be
// recorded, nothing is applied.
func TestLevelIsRecordedFirst(t *testing.T) {
	raising := &raft.Log{Index: 1, Data: encode(t, catalog.RaiseLevel{Level: catalog.LevelRequests})}
	cat := catalog.New()
	var recorded []catalog.FeatureLevel
	machine := New(cat, Options{})
	machine.RecordLevel(func(level catalog.FeatureLevel) error {
		recorded = append(recorded, level)
		if cat.Snapshot().FeatureLevel() >= level {
			return fmt.Errorf("level %d is applied already", level)
		}
		return nil
	})
	if _, failed := machine.Apply(raising).(error); failed || !slices.Equal(recorded, []catalog.FeatureLevel{2}) {
		t.Errorf("recorded %v", recorded)
	}
	captured := snapshotBytes(t, cat.Snapshot())

	var stops []error
	broken := New(catalog.New(), Options{Stop: func(err error) { stops = append(stops, err) }})
	broken.RecordLevel(func(catalog.FeatureLevel) error { return errors.New("disk full") })
	if _, failed := broken.Apply(raising).(error); !failed || len(stops) != 1 {
		t.Errorf("went on without a record: stopped with %v", stops)
	}
	restored := New(catalog.New(), Options{Stop: func(err error) { stops = append(stops, err) }})
	restored.RecordLevel(func(level catalog.FeatureLevel) error { return fmt.Errorf("level %d: disk full", level) })
	if err := restored.Restore(nopCloser{captured}); err == nil || len(stops) != 2 {
		t.Errorf("restored without a record: error %v", err)
	}
}

type nopCloser struct{ *bytes.Buffer }

func (nopCloser) Close() error { return nil }

// FuzzEntry holds that the decoder of entries never panics, and that what it accepts as a batch can be packed and decoded
// to the same.
func FuzzEntry(f *testing.F) {
	requests, _ := goldenBatch(f)
	f.Add(Pack(requests[1:]))
	f.Add(Pack(requests[3:]))
	f.Add(requests[1].Command)
	f.Fuzz(func(t *testing.T, encoded []byte) {
		d := newDecoder()
		commands, err := d.entry(encoded)
		if err != nil {
			if errdef.ReasonOf(err) != errdef.CommandUnknown || commands != nil {
				t.Fatalf("error %v, commands %v", err, commands)
			}
			return
		}
		packed := make([]Request, len(commands))
		for i, one := range commands {
			packed[i] = Request{Request: one.request, Command: encode(t, one.command)}
		}
		again, err := d.entry(Pack(packed))
		if err != nil || !reflect.DeepEqual(again, commands) {
			t.Fatalf("error %v,\n got %+v\nwant %+v", err, again, commands)
		}
		New(catalog.New(), Options{}).Apply(&raft.Log{Index: 1, Data: encoded}) // must not panic
	})
}
