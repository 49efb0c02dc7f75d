package fsm

import (
	"io"

	"github.com/ocistern/ocistern/fsm/catalog"
)

// SnapshotInfo is what a snapshot says of itself, and what was found in it.
type SnapshotInfo struct {
	Header  catalog.Header
	Version uint32        // of the format
	Records catalog.Stats // up to the damage, if there is one
	Bytes   int64         // likewise
}

// InspectSnapshot reads a snapshot to its end and verifies its checksum. For a snapshot that is cut off, damaged or of a
// version that this build does not know it fails with reason SNAPSHOT_INVALID, and returns what it found before.
func InspectSnapshot(from io.Reader) (SnapshotInfo, error) {
	reader := newSnapshotReader(from)
	header, err := reader.header()
	info := SnapshotInfo{Header: header, Version: reader.version}
	if err == nil {
		for record, damage := range reader.records() {
			if err = damage; err != nil {
				break
			}
			info.Records.Count(record)
		}
	}
	info.Bytes = reader.frames.total
	return info, err
}
