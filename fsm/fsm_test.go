package fsm

import (
	"io"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/fsm/catalog/catalogtest"
	"github.com/ocistern/ocistern/internal/errdef"
)

// unknownCommand is what a newer node might write: version 9.
var unknownCommand = []byte{8, 9}

// randomLogs returns a log of random commands, with a configuration entry here and there.
func randomLogs(t *testing.T, seed uint64, length int) []*raft.Log {
	t.Helper()
	commands := catalogtest.NewCommands(seed)
	var logs []*raft.Log
	for i := range length {
		log := &raft.Log{Index: uint64(i + 1), Type: raft.LogConfiguration, Data: []byte("not a command")}
		if i%7 != 3 {
			encoded, err := Encode(commands.Next())
			if err != nil {
				t.Fatal(err)
			}
			log = &raft.Log{Index: uint64(i + 1), Type: raft.LogCommand, Data: encoded}
		}
		logs = append(logs, log)
	}
	return logs
}

// replay returns the catalog that a log gives when it arrives in batches.
func replay(logs []*raft.Log, batch int) *catalog.Snapshot {
	cat := catalog.New()
	machine := New(cat, Options{})
	for chunk := range slices.Chunk(logs, batch) {
		machine.ApplyBatch(chunk)
	}
	return cat.Snapshot()
}

func digestOf(t *testing.T, s *catalog.Snapshot) digest.Digest {
	t.Helper()
	dgst, err := s.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return dgst
}

// TestEveryNodeAgrees replays one log in batches of several sizes, then with planted bugs: a node that skips a
// command, one that applies two in the other order, and one that misreads a byte. The hash must tell each of them
// apart.
func TestEveryNodeAgrees(t *testing.T) {
	logs := randomLogs(t, 5, 200)
	want := replay(logs, 1)
	for _, batch := range []int{7, 64, 200} {
		got := replay(logs, batch)
		if got.CommandHash() != want.CommandHash() || digestOf(t, got) != digestOf(t, want) || got.Index() != want.Index() {
			t.Errorf("batches of %d lead to another catalog", batch)
		}
	}

	swapped, skipped := slices.Clone(logs), slices.Clone(logs)
	swapped[10], swapped[11] = &raft.Log{Index: 11, Data: logs[11].Data}, &raft.Log{Index: 12, Data: logs[10].Data}
	skipped[20] = &raft.Log{Index: 21, Type: raft.LogConfiguration}
	changed := slices.Clone(logs)
	encoded, err := Encode(catalog.SetCluster{ClusterID: "another"})
	if err != nil {
		t.Fatal(err)
	}
	changed[30] = &raft.Log{Index: 31, Data: encoded}
	for name, bad := range map[string][]*raft.Log{"swapped": swapped, "skipped": skipped, "changed": changed} {
		if replay(bad, 7).CommandHash() == want.CommandHash() {
			t.Errorf("%s: goes unnoticed", name)
		}
	}
}

// TestResponses shows what each entry of a batch is answered, and what Options.Applied is told.
func TestResponses(t *testing.T) {
	var reported []catalog.LogIndex
	cat := catalog.New()
	machine := New(cat, Options{Applied: func(entries []catalog.Entry) {
		for _, entry := range entries {
			reported = append(reported, entry.Index)
		}
		if cat.Snapshot().Index() != 4 {
			t.Errorf("told of entries before they are visible: index %d", cat.Snapshot().Index())
		}
	}})
	set := func(id string) []byte {
		encoded, err := Encode(catalog.SetCluster{ClusterID: id})
		if err != nil {
			t.Fatal(err)
		}
		return encoded
	}
	responses := machine.ApplyBatch([]*raft.Log{
		{Index: 1, Type: raft.LogConfiguration},
		{Index: 2, Type: raft.LogCommand, Data: set("c1")},
		{Index: 3, Type: raft.LogCommand, Data: set("c2")},
		{Index: 4, Type: raft.LogCommand, Data: set("c1")},
	})
	if responses[0] != nil {
		t.Errorf("an entry without a command is answered %v", responses[0])
	}
	for i, want := range []errdef.Reason{"", errdef.ClusterMismatch, ""} {
		results, ok := responses[i+1].([]catalog.Result)
		if !ok || len(results) != 1 || errdef.ReasonOf(results[0].Err) != want || results[0].Index != catalog.LogIndex(i+2) {
			t.Errorf("response %d is %v", i+1, responses[i+1])
		}
	}
	if !slices.Equal(reported, []catalog.LogIndex{2, 4}) {
		t.Errorf("told of %v", reported)
	}
	machine.ApplyBatch([]*raft.Log{{Index: 5, Type: raft.LogConfiguration}})
	if got := cat.Snapshot().Index(); got != 5 || len(reported) != 2 {
		t.Errorf("index %d after a configuration entry, told of %v", got, reported)
	}
}

// TestUnknownCommandStops shows that nothing after an unknown command is applied, that Stop is called once, and that
// no snapshot is taken which would claim to contain it.
func TestUnknownCommandStops(t *testing.T) {
	var stops []error
	cat := catalog.New()
	machine := New(cat, Options{Stop: func(err error) { stops = append(stops, err) }})
	logs := randomLogs(t, 2, 10)
	want := replay(logs[:4], 4)

	unknown := slices.Clone(logs)
	unknown[4] = &raft.Log{Index: 5, Type: raft.LogCommand, Data: unknownCommand}
	responses := machine.ApplyBatch(unknown)
	responses = append(responses, machine.Apply(logs[4]))
	machine.ApplyBatch(logs[5:])

	if len(stops) != 1 || errdef.ReasonOf(stops[0]) != errdef.CommandUnknown {
		t.Fatalf("stopped with %v", stops)
	}
	for i, response := range responses[4:] {
		if err, _ := response.(error); errdef.ReasonOf(err) != errdef.CommandUnknown {
			t.Errorf("response %d is %v", i+4, response)
		}
	}
	if got := cat.Snapshot(); got.Index() != 4 || digestOf(t, got) != digestOf(t, want) {
		t.Errorf("the catalog went on to index %d", got.Index())
	}
	if _, err := machine.Snapshot(); errdef.ReasonOf(err) != errdef.CommandUnknown {
		t.Errorf("snapshot: error %v", err)
	}
	if err := machine.Restore(io.NopCloser(snapshotBytes(t, want))); errdef.ReasonOf(err) != errdef.CommandUnknown {
		t.Errorf("restore: error %v", err)
	}
}

// While a snapshot is restored, nobody is told the hash of what was there before: whoever waits for the restored index would take
// it for the new one's. Without the remedy the old hash is known until the end.
func TestRestoreForgetsHashesFirst(t *testing.T) {
	cat := catalog.New()
	machine := New(cat, Options{})
	machine.ApplyBatch([]*raft.Log{{Index: 7, Type: raft.LogConfiguration}})
	if _, known := machine.HashAt(7); !known {
		t.Fatal("the hash at index 7 is not known")
	}
	captured, err := machine.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	written := &sink{room: 1 << 20}
	if err := captured.Persist(written); err != nil {
		t.Fatal(err)
	}
	told := false
	reading := readerFunc(func(p []byte) (int, error) {
		_, known := machine.HashAt(7)
		told = told || known
		return written.Read(p)
	})
	if err := machine.Restore(io.NopCloser(reading)); err != nil {
		t.Fatal(err)
	}
	if told {
		t.Error("the hash of the replaced catalog was told during the restore")
	}
	if _, known := machine.HashAt(7); !known {
		t.Error("the hash of the restored catalog is not known")
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
