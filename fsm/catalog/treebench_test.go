//go:build unix

package catalog

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
	"github.com/hashicorp/go-memdb"
	"github.com/opencontainers/go-digest"

	"github.com/ocistern/ocistern/internal/reference"
)

// benchmarkRecords is how many records a tree holds when it is measured.
const benchmarkRecords = 1_000_000

// benchmarkRecord is one record with its key, as the trees under comparison hold it.
type benchmarkRecord struct {
	Tenant     reference.Tenant
	Repository reference.Repository
	Name       string
}

// benchmarkRecordsFrom returns records of 1,000 repositories, with digests for names, in random order.
func benchmarkRecordsFrom(first, count int) []*benchmarkRecord {
	repositories := make([]reference.Repository, 1000)
	for i := range repositories {
		repositories[i] = reference.Repository(fmt.Sprintf("registry.example.com/team-%d/application-%d", i%30, i))
	}
	records := make([]*benchmarkRecord, count)
	for i := range records {
		name := digest.FromString(fmt.Sprint(first + i)).String()
		records[i] = &benchmarkRecord{"default", repositories[(first+i)%len(repositories)], name}
	}
	return records
}

// candidate is one way to keep the catalog's records.
type candidate interface {
	// insert adds records and makes them visible together.
	insert(records []*benchmarkRecord)
	// lookup finds a record in what is visible.
	lookup(key *benchmarkRecord) bool
	// capture returns what is visible, to be kept while the writer goes on.
	capture() any
}

// BenchmarkTree compares, at a million records: looking one up, inserting one by one and in batches of 64 with a snapshot
// after each, capturing a snapshot, and the memory that the tree takes beside the records (B/record). DESIGN.md of package
// fsm has the figures and what they decided.
func BenchmarkTree(b *testing.B) {
	for _, c := range []struct {
		name string
		make func() candidate
	}{
		{"btree", func() candidate { return newBtreeCandidate() }},
		{"iradix", func() candidate { return newRadixCandidate() }},
		{"memdb", func() candidate { return newMemdbCandidate(b) }},
	} {
		b.Run(c.name, func(b *testing.B) { benchmarkCandidate(b, c.make()) })
	}
}

func benchmarkCandidate(b *testing.B, c candidate) {
	records := benchmarkRecordsFrom(0, benchmarkRecords)
	before := heapBytes()
	for start := 0; start < len(records); start += 1000 {
		c.insert(records[start : start+1000])
	}
	perRecord := float64(heapBytes()-before) / benchmarkRecords
	inserted := benchmarkRecords

	b.Run("lookup", func(b *testing.B) {
		random := rand.New(rand.NewPCG(1, 2))
		defer reportCPU(b)()
		for b.Loop() {
			if !c.lookup(records[random.IntN(len(records))]) {
				b.Fatal("a record is missing")
			}
		}
	})
	b.Run("snapshot", func(b *testing.B) {
		defer reportCPU(b)()
		for b.Loop() {
			runtime.KeepAlive(c.capture())
		}
		b.ReportMetric(perRecord, "B/record")
	})
	for _, batch := range []int{1, 64} {
		b.Run(fmt.Sprintf("insert-%d", batch), func(b *testing.B) {
			fresh := benchmarkRecordsFrom(inserted, b.N)
			inserted += b.N
			b.ResetTimer()
			defer reportCPU(b)()
			for start := 0; start < len(fresh); start += batch {
				c.insert(fresh[start:min(start+batch, len(fresh))])
			}
		})
	}
	runtime.KeepAlive(records)
}

// reportCPU measures the processor time of the whole process, garbage collection included, until the function that it
// returns is called. On a machine with other work it means more than the time that has passed.
func reportCPU(b *testing.B) func() {
	start := processorTime(b)
	return func() { b.ReportMetric(float64(processorTime(b)-start)/float64(b.N), "cpu-ns/op") }
}

func processorTime(b *testing.B) int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func heapBytes() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// btreeCandidate is the catalog's own tree.
type btreeCandidate struct {
	writer  tree[benchmarkRecord]
	visible tree[benchmarkRecord]
}

func newBtreeCandidate() *btreeCandidate {
	t := newTree[benchmarkRecord]()
	return &btreeCandidate{writer: t, visible: t.copy()}
}

func (r *benchmarkRecord) key() key { return key{r.Tenant, r.Repository, r.Name} }

func (c *btreeCandidate) insert(records []*benchmarkRecord) {
	for _, r := range records {
		c.writer.set(r.key(), r)
	}
	c.visible = c.writer.copy()
}

func (c *btreeCandidate) lookup(r *benchmarkRecord) bool {
	_, ok := c.visible.get(r.key())
	return ok
}

func (c *btreeCandidate) capture() any { return c.writer.copy() }

// radixCandidate is an immutable radix tree over the parts of the key, joined by zero bytes.
type radixCandidate struct {
	visible *iradix.Tree[*benchmarkRecord]
}

func newRadixCandidate() *radixCandidate { return &radixCandidate{iradix.New[*benchmarkRecord]()} }

func (r *benchmarkRecord) bytes() []byte {
	joined := make([]byte, 0, len(r.Tenant)+len(r.Repository)+len(r.Name)+2)
	joined = append(append(joined, r.Tenant...), 0)
	joined = append(append(joined, r.Repository...), 0)
	return append(joined, r.Name...)
}

func (c *radixCandidate) insert(records []*benchmarkRecord) {
	txn := c.visible.Txn()
	for _, r := range records {
		txn.Insert(r.bytes(), r)
	}
	c.visible = txn.CommitOnly()
}

func (c *radixCandidate) lookup(r *benchmarkRecord) bool {
	_, ok := c.visible.Get(r.bytes())
	return ok
}

func (c *radixCandidate) capture() any { return c.visible }

// memdbCandidate is a table of go-memdb with the key as its one index.
type memdbCandidate struct {
	b        *testing.B
	database *memdb.MemDB
}

func newMemdbCandidate(b *testing.B) *memdbCandidate {
	id := &memdb.IndexSchema{Name: "id", Unique: true, Indexer: &memdb.CompoundIndex{Indexes: []memdb.Indexer{
		&memdb.StringFieldIndex{Field: "Tenant"},
		&memdb.StringFieldIndex{Field: "Repository"},
		&memdb.StringFieldIndex{Field: "Name"},
	}}}
	database, err := memdb.NewMemDB(&memdb.DBSchema{Tables: map[string]*memdb.TableSchema{
		"records": {Name: "records", Indexes: map[string]*memdb.IndexSchema{"id": id}},
	}})
	if err != nil {
		b.Fatal(err)
	}
	return &memdbCandidate{b, database}
}

func (c *memdbCandidate) insert(records []*benchmarkRecord) {
	txn := c.database.Txn(true)
	for _, r := range records {
		if err := txn.Insert("records", r); err != nil {
			c.b.Fatal(err)
		}
	}
	txn.Commit()
}

func (c *memdbCandidate) lookup(r *benchmarkRecord) bool {
	found, err := c.database.Txn(false).First("records", "id", string(r.Tenant), string(r.Repository), r.Name)
	return err == nil && found != nil
}

func (c *memdbCandidate) capture() any { return c.database.Snapshot() }
