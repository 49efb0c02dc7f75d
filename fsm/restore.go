package fsm

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"iter"

	"google.golang.org/protobuf/proto"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	logv1 "github.com/ocistern/ocistern/internal/proto/ocistern/log/v1"
)

// restore replaces the content of cat by a snapshot that writeSnapshot made. It holds one record at a time beside the
// two catalogs. On an error cat stays as it was.
func restore(cat *catalog.Catalog, from io.Reader) error {
	reader := newSnapshotReader(from)
	header, err := reader.header()
	if err != nil {
		return err
	}
	return cat.Restore(header, reader.records())
}

// snapshotReader reads the messages of one snapshot.
type snapshotReader struct {
	frames  frameReader
	decoder decoder
	version uint32 // of the format, once the header is read
}

func newSnapshotReader(from io.Reader) *snapshotReader {
	return &snapshotReader{
		frames:  frameReader{from: bufio.NewReaderSize(from, 64<<10), sum: sha256.New()},
		decoder: newDecoder(),
	}
}

func (r *snapshotReader) header() (catalog.Header, error) {
	message := &logv1.SnapshotHeader{}
	if err := r.frames.read(message); err != nil {
		return catalog.Header{}, err
	}
	r.version = message.GetVersion()
	level, err := headerLevel(message)
	if err != nil {
		return catalog.Header{}, err
	}
	r.decoder.check(message)
	if len(message.GetCommandHash()) != sha256.Size {
		r.decoder.fail("the command hash has %d bytes", len(message.GetCommandHash()))
	}
	if err := r.decoder.finish(); err != nil {
		return catalog.Header{}, errdef.Wrap(errdef.SnapshotInvalid, err, "snapshot header")
	}
	return catalog.Header{
		Index: catalog.LogIndex(message.GetIndex()), ClusterID: message.GetClusterId(),
		CommandHash: [sha256.Size]byte(message.GetCommandHash()), Level: level,
		Forgotten: catalog.LogIndex(message.GetForgotten()), Formers: message.GetFormerClusterIds(),
	}, nil
}

// headerLevel returns the feature level of the cluster that a snapshot is of. Version 1 was written before there were
// levels, and leaves it out.
func headerLevel(message *logv1.SnapshotHeader) (catalog.FeatureLevel, error) {
	version, level := catalog.FeatureLevel(message.GetVersion()), catalog.FeatureLevel(message.GetFeatureLevel())
	switch {
	case version == catalog.LevelFirst && level == 0 && message.GetForgotten() == 0 && len(message.GetFormerClusterIds()) == 0:
		return catalog.LevelFirst, nil
	case version == catalog.LevelRequests && version <= MaxLevel && level >= version && level <= MaxLevel:
		return level, nil
	default:
		return 0, errdef.New(errdef.SnapshotInvalid, "snapshot of version %d and feature level %d, this build knows %d",
			version, level, MaxLevel).WithRemedy("run the version of ocistern that wrote it")
	}
}

// records yields the records, and an error unless the trailer proves that these were all of them, unharmed.
func (r *snapshotReader) records() iter.Seq2[catalog.Record, error] {
	return func(yield func(catalog.Record, error) bool) {
		for count := uint64(0); ; count++ {
			message := &logv1.SnapshotRecord{}
			if err := r.frames.read(message); err != nil {
				yield(catalog.Record{}, err)
				return
			}
			if trailer := message.GetTrailer(); trailer != nil {
				if err := r.verify(trailer, count); err != nil {
					yield(catalog.Record{}, err)
				}
				return
			}
			record := r.decoder.record(message)
			if err := r.decoder.finish(); err != nil {
				yield(record, errdef.Wrap(errdef.SnapshotInvalid, err, "snapshot record %d", count))
				return
			}
			if !yield(record, nil) {
				return
			}
		}
	}
}

// verify compares the trailer with what was read before it, and demands that nothing follows.
func (r *snapshotReader) verify(trailer *logv1.SnapshotTrailer, records uint64) error {
	r.decoder.check(trailer)
	if err := r.decoder.finish(); err != nil {
		return errdef.Wrap(errdef.SnapshotInvalid, err, "snapshot trailer")
	}
	if trailer.GetRecords() != records || !bytes.Equal(trailer.GetChecksum(), r.frames.sum.Sum(nil)) {
		return errdef.New(errdef.SnapshotInvalid, "snapshot is damaged: its checksum or its number of records is wrong")
	}
	if _, err := r.frames.from.ReadByte(); !errors.Is(err, io.EOF) {
		return errdef.New(errdef.SnapshotInvalid, "snapshot goes on after its trailer")
	}
	return nil
}

// frameReader reads length-delimited messages. Its sum covers all of them but the last one read: what a trailer,
// being the last, was computed over.
type frameReader struct {
	from   *bufio.Reader
	sum    hash.Hash
	buffer []byte // the last one, with its length
	total  int64  // bytes of all messages read
}

func (f *frameReader) read(message proto.Message) error {
	f.sum.Write(f.buffer)
	size, err := binary.ReadUvarint(f.from)
	if err != nil {
		return truncated(err)
	}
	if size > maxRecordBytes {
		return errdef.New(errdef.SnapshotInvalid, "snapshot record claims %d bytes, at most %d are known",
			size, maxRecordBytes)
	}
	f.buffer = binary.AppendUvarint(f.buffer[:0], size)
	prefix := len(f.buffer)
	if f.buffer, err = appendExactly(f.buffer, f.from, int(size)); err != nil {
		return truncated(err)
	}
	f.total += int64(len(f.buffer))
	if err := proto.Unmarshal(f.buffer[prefix:], message); err != nil {
		return errdef.Wrap(errdef.SnapshotInvalid, err, "snapshot record is damaged")
	}
	return nil
}

// appendExactly appends size bytes to buffer. It takes memory as the bytes arrive, not as they are promised.
func appendExactly(buffer []byte, from io.Reader, size int) ([]byte, error) {
	into := bytes.NewBuffer(buffer)
	_, err := io.CopyN(into, from, int64(size))
	return into.Bytes(), err
}

func truncated(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return errdef.Wrap(errdef.SnapshotInvalid, err, "snapshot cannot be read to its end")
}
