package fsm

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"hash"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// Transplant brings a snapshot into a running cluster, at an index that is known only at the last moment. First Spool
// verifies all of it and keeps its records on a disk, then Reader makes a snapshot of them. It is used once, by one
// goroutine at a time.
type Transplant struct {
	header  catalog.Header
	into    catalog.Header // of the cluster
	from    *snapshotReader
	spool   io.ReadSeeker
	records uint64
	size    int64             // of the records
	sum     [sha256.Size]byte // of the records, as they were spooled
}

// NewTransplant reads the header of a snapshot. Errors are those of InspectSnapshot.
func NewTransplant(from io.Reader) (*Transplant, error) {
	reader := newSnapshotReader(from)
	header, err := reader.header()
	return &Transplant{header: header, from: reader}, err
}

// Into says at which feature level the cluster is, and which clusters it was before. No snapshot changes these: one of a
// higher level is refused with reason VERSION_TOO_OLD.
func (t *Transplant) Into(cluster catalog.Header) error {
	if t.header.Level > cluster.Level {
		return errdef.New(errdef.VersionTooOld, "the snapshot is of feature level %d, the cluster is at level %d",
			t.header.Level, cluster.Level).WithRemedy("update all members, and look what holds the level back: ocistern status")
	}
	t.into = cluster
	return nil
}

// Header returns the header that was read.
func (t *Transplant) Header() catalog.Header { return t.header }

// Spool reads the rest of the snapshot, verifies its checksum, and keeps its records in spool, without the holders of blobs
// for which keep is false, and without outcomes of requests. It holds one record at a time.
func (t *Transplant) Spool(spool io.ReadWriteSeeker, keep func(catalog.NodeID) bool) error {
	buffered := bufio.NewWriterSize(spool, 64<<10)
	frames := &frameWriter{to: buffered, sum: sha256.New()}
	for record, err := range t.from.records() {
		if err != nil {
			return err
		}
		if record.Outcome != nil {
			continue
		}
		message, err := encodeRecord(record.WithHolders(keep))
		if err != nil {
			return err
		}
		if err := frames.write(message); err != nil {
			return err
		}
		t.records++
		t.size += int64(len(frames.buffer))
	}
	if err := buffered.Flush(); err != nil {
		return errdef.Wrap(errdef.ReasonOf(err), err, "snapshot cannot be spooled")
	}
	t.spool, t.sum = spool, [sha256.Size]byte(frames.sum.Sum(nil))
	return nil
}

// headerAt is the header at a new place. Requests from before are forgotten: what became of them was undone, and must not be
// done again.
func (t *Transplant) headerAt(clusterID string, index catalog.LogIndex) catalog.Header {
	header := replanted(t.header, clusterID, index)
	header.Level, header.Formers, header.Forgotten = t.into.Level, t.into.Formers, index
	return header
}

// replanted is the header of a catalog at a new place. The hash goes on from the one it had: the history before index is now
// the history of that catalog, and no other one has this hash.
func replanted(header catalog.Header, clusterID string, index catalog.LogIndex) catalog.Header {
	header.CommandHash = chain(header.CommandHash, uint64(index), nil)
	header.ClusterID, header.Index = clusterID, index
	return header
}

// Replant gives a catalog to a new cluster, at an index that it has reached or that lies ahead, without the holders of blobs
// for which keep is false. The cluster that it was of becomes a former one, where the feature level allows. Raft must not run.
func Replant(cat *catalog.Catalog, clusterID string, index catalog.LogIndex, keep func(catalog.NodeID) bool) error {
	old := cat.Snapshot()
	header := replanted(old.Header(), clusterID, index)
	if former := old.ClusterID(); header.Level >= catalog.LevelRequests && former != "" && former != clusterID {
		header.Formers = catalog.WithFormers(header.Formers, former)
	}
	return cat.Restore(header, func(yield func(catalog.Record, error) bool) {
		for record := range old.Records() {
			if !yield(record.WithHolders(keep), nil) {
				return
			}
		}
	})
}

// Size returns how many bytes Reader will yield.
func (t *Transplant) Size(clusterID string, index catalog.LogIndex) (int64, error) {
	var counted bytes.Buffer
	frames := &frameWriter{to: &counted, sum: sha256.New()}
	if err := frames.write(headerMessage(t.headerAt(clusterID, index))); err != nil {
		return 0, err
	}
	if err := frames.write(trailerMessage(t.records, t.sum[:])); err != nil {
		return 0, err
	}
	return int64(counted.Len()) + t.size, nil
}

// Reader returns the snapshot as one of a cluster, at an index that it asks for when it is first read. It fails when the
// spool does not give back what was put there.
func (t *Transplant) Reader(clusterID string, index func() (catalog.LogIndex, error)) io.Reader {
	sum, spooled := sha256.New(), sha256.New()
	header := lazily(func() ([]byte, error) {
		if _, err := t.spool.Seek(0, io.SeekStart); err != nil {
			return nil, errdef.Wrap(errdef.StorageFailed, err, "spooled snapshot")
		}
		at, err := index()
		if err != nil {
			return nil, err
		}
		return frame(sum, headerMessage(t.headerAt(clusterID, at)))
	})
	trailer := lazily(func() ([]byte, error) {
		if !bytes.Equal(spooled.Sum(nil), t.sum[:]) {
			return nil, errdef.New(errdef.StorageFailed, "the spooled snapshot has changed on the disk")
		}
		return frame(sum, trailerMessage(t.records, sum.Sum(nil)))
	})
	records := io.TeeReader(bufio.NewReaderSize(t.spool, 64<<10), io.MultiWriter(sum, spooled))
	return io.MultiReader(header, records, trailer)
}

func frame(sum hash.Hash, message proto.Message) ([]byte, error) {
	var framed bytes.Buffer
	err := (&frameWriter{to: &framed, sum: sum}).write(message)
	return framed.Bytes(), err
}

func lazily(generate func() ([]byte, error)) io.Reader { return &lazyReader{generate: generate} }

// lazyReader reads what generate returns, which is called at the first Read.
type lazyReader struct {
	generate func() ([]byte, error)
	bytes    *bytes.Reader
}

// Read implements io.Reader.
func (r *lazyReader) Read(p []byte) (int, error) {
	if r.bytes == nil {
		made, err := r.generate()
		if err != nil {
			return 0, err
		}
		r.bytes = bytes.NewReader(made)
	}
	return r.bytes.Read(p)
}
