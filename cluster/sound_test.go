package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/ocistern/ocistern/internal/errdef"
)

// sampleEntries is more than fits one page, with entries that have pages of their own.
const sampleEntries = 120

func sampleEntry(index uint64) *raft.Log {
	return &raft.Log{Index: index, Term: 1 + index/50, Data: bytes.Repeat([]byte{byte(index)}, 10+int(index%7)*90)}
}

// sampleBolt makes a store with entries, a term and a vote, some of it written over.
func sampleBolt(t testing.TB, entries uint64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "raft.db")
	bolt, err := openBoltStore(path)
	must(t, err)
	logs, stable := checkedLogs{bolt, true}, checkedStable{bolt, true}
	must(t, stable.Set([]byte(ownerKey), []byte("node-1")))
	for index := uint64(1); index <= entries; {
		var batch []*raft.Log
		for range min(1000, entries/5) {
			batch = append(batch, sampleEntry(index))
			index++
		}
		must(t, logs.StoreLogs(batch))
		must(t, stable.SetUint64([]byte("CurrentTerm"), index))
		must(t, stable.Set([]byte("LastVoteCand"), []byte("node-2")))
	}
	must(t, bolt.Close())
	return path
}

// sampleOf reads what checkBolt has let pass.
func sampleOf(path string) (entries []raft.Log, term uint64, vote string, err error) {
	bolt, err := openBoltStore(path)
	if err != nil {
		return nil, 0, "", err
	}
	required := requiresChecksums(bolt)
	logs, stable := checkedLogs{bolt, required}, checkedStable{bolt, required}
	for index := uint64(1); index <= sampleEntries; index++ {
		var entry raft.Log
		if err := logs.GetLog(index, &entry); err != nil {
			return nil, 0, "", errors.Join(err, bolt.Close())
		}
		entries = append(entries, raft.Log{Index: entry.Index, Term: entry.Term, Type: entry.Type, Data: entry.Data})
	}
	term, termErr := stable.GetUint64([]byte("CurrentTerm"))
	cast, voteErr := stable.Get([]byte("LastVoteCand"))
	return entries, term, string(cast), errors.Join(termErr, voteErr, bolt.Close())
}

// Wherever a byte flips or the file ends, it is found damaged with a typed error, or reads as what was written: never a
// panic, never another entry, term or vote. Without checkBolt the process ends here: bbolt panics where nobody can recover;
// without the checksums other entries and terms are read.
func TestDamagedBolt(t *testing.T) {
	t.Parallel()
	path := sampleBolt(t, sampleEntries)
	whole, err := os.ReadFile(path)
	must(t, err)
	wantEntries, wantTerm, wantVote, err := sampleOf(path)
	must(t, err)
	var positions []int
	for at := 0; at < len(whole); at++ {
		if inPage := at % os.Getpagesize(); at%331 == 0 || inPage < 36 || at < 2*os.Getpagesize() && inPage < 90 {
			positions = append(positions, at)
		}
	}
	cases := map[string]func() []byte{}
	for _, at := range positions {
		cases[fmt.Sprintf("byte %d flipped", at)] = func() []byte {
			flipped := bytes.Clone(whole)
			flipped[at] ^= 1 << (at % 8)
			return flipped
		}
	}
	for size := len(whole) - 1; size > 0; size -= 3001 {
		cases[fmt.Sprintf("cut to %d bytes", size)] = func() []byte { return whole[:size] }
	}
	var found, harmless atomic.Int64
	check := func(copied, what string) error {
		if err := errors.Join(os.RemoveAll(copied), os.WriteFile(copied, cases[what](), 0o600)); err != nil {
			return err // removed, since bbolt does not let go of a file over which it has panicked
		}
		if _, err := checkBolt(copied); err != nil {
			found.Add(1)
			if errdef.ReasonOf(err) != errdef.ContentCorrupt {
				return err
			}
			return nil
		}
		harmless.Add(1)
		entries, term, vote, err := sampleOf(copied)
		if err == nil && (term != wantTerm || vote != wantVote || !reflect.DeepEqual(entries, wantEntries)) {
			return fmt.Errorf("passed, and reads as %d entries, term %d of %d, vote %q", len(entries), term, wantTerm, vote)
		}
		return err
	}
	names := make(chan string)
	var checking sync.WaitGroup
	for range 8 { // they wait for the disk
		copied := filepath.Join(t.TempDir(), "raft.db")
		checking.Go(func() {
			for what := range names {
				if err := check(copied, what); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
	for what := range cases {
		names <- what
	}
	close(names)
	checking.Wait()
	if found.Load() < 100 || harmless.Load() == 0 {
		t.Errorf("%d damaged, %d harmless: this test does not show what it should", found.Load(), harmless.Load())
	}
	t.Logf("%d of %d found damaged", found.Load(), found.Load()+harmless.Load())
}

// BenchmarkCheckBolt tells what the check adds to a start.
func BenchmarkCheckBolt(b *testing.B) {
	for _, entries := range []uint64{20_000, 1_000_000} {
		b.Run(fmt.Sprint(entries), func(b *testing.B) {
			path := sampleBolt(b, entries)
			info, err := os.Stat(path)
			must(b, err)
			b.SetBytes(info.Size())
			for b.Loop() {
				found, err := checkBolt(path)
				if err != nil || found.Last < entries {
					b.Fatalf("%+v, %v", found, err)
				}
			}
		})
	}
}

// The log of a store that was made before there were checksums is read as it is.
func TestEntriesWithoutChecksums(t *testing.T) {
	old, err := raftboltdb.NewBoltStore(filepath.Join(t.TempDir(), "raft.db"))
	must(t, err)
	defer func() { must(t, old.Close()) }()
	must(t, old.StoreLog(&raft.Log{Index: 1, Data: []byte("old")}))
	must(t, old.SetUint64([]byte("CurrentTerm"), 7))
	var entry raft.Log
	must(t, checkedLogs{old, false}.GetLog(1, &entry))
	if term, err := (checkedStable{old, false}).GetUint64([]byte("CurrentTerm")); err != nil || term != 7 ||
		string(entry.Data) != "old" {
		t.Errorf("entry %q, term %d, %v", entry.Data, term, err)
	}
	if err := (checkedLogs{old, true}).GetLog(1, &entry); !errors.Is(err, errdef.ErrContentCorrupt) {
		t.Errorf("required: %v", err)
	}
	given := &raft.Log{Index: 2, Data: []byte("new"), Extensions: []byte("theirs")}
	must(t, checkedLogs{old, false}.StoreLog(given))
	must(t, checkedLogs{old, true}.GetLog(2, &entry))
	if string(entry.Extensions) != "theirs" || string(given.Extensions) != "theirs" {
		t.Errorf("extensions %q, given %q", entry.Extensions, given.Extensions)
	}
}
