package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"

	"github.com/hashicorp/raft"

	"github.com/ocistern/ocistern/internal/errdef"
)

// checkedLogs keeps a CRC-32C with each entry, behind its extensions, and checks it when the entry is read: raft-boltdb has
// none, and a byte that flips inside a command may well be another command. It is taken off again, so that it never leaves
// this disk. Entries that were stored without one are read as they are, unless required.
type checkedLogs struct {
	raft.LogStore
	required bool
}

// seal marks extensions that end with a checksum.
const seal = "crc1"

const sealBytes = len(seal) + crc32.Size

// checksumsKey is the key in a stable store whose log has a checksum at each entry.
const checksumsKey = "OcisternChecksums"

func requiresChecksums(stable interface{ Get([]byte) ([]byte, error) }) bool {
	value, err := stable.Get([]byte(checksumsKey))
	return err == nil && len(value) > 0
}

func checksum(entry *raft.Log) uint32 {
	sum := newChecksum()
	var fixed [8 + 8 + 1 + 8]byte
	binary.BigEndian.PutUint64(fixed[0:], entry.Index)
	binary.BigEndian.PutUint64(fixed[8:], entry.Term)
	fixed[16] = byte(entry.Type)
	binary.BigEndian.PutUint64(fixed[17:], uint64(len(entry.Data)))
	sum.Write(fixed[:])
	sum.Write(entry.Data)
	sum.Write(entry.Extensions)
	return sum.Sum32()
}

// StoreLog implements raft.LogStore, as do the methods below.
func (c checkedLogs) StoreLog(entry *raft.Log) error { return c.StoreLogs([]*raft.Log{entry}) }

// StoreLogs changes none of the entries: raft sends them to others.
func (c checkedLogs) StoreLogs(entries []*raft.Log) error {
	sealed := make([]*raft.Log, len(entries))
	for i, entry := range entries {
		copied := *entry
		copied.Extensions = make([]byte, 0, len(entry.Extensions)+sealBytes)
		copied.Extensions = append(append(copied.Extensions, entry.Extensions...), seal...)
		copied.Extensions = binary.BigEndian.AppendUint32(copied.Extensions, checksum(entry))
		sealed[i] = &copied
	}
	return c.LogStore.StoreLogs(sealed)
}

// GetLog fails with reason CONTENT_CORRUPT for an entry that is not what was stored.
func (c checkedLogs) GetLog(index uint64, entry *raft.Log) error {
	err := c.LogStore.GetLog(index, entry)
	if errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	if err != nil {
		return errdef.Wrap(errdef.ContentCorrupt, err, "entry %d cannot be decoded", index)
	}
	at := len(entry.Extensions) - sealBytes
	if at < 0 || !bytes.HasPrefix(entry.Extensions[at:], []byte(seal)) {
		if c.required || entry.Index != index {
			return errdef.New(errdef.ContentCorrupt, "entry %d has lost its checksum", index)
		}
		return nil
	}
	told := binary.BigEndian.Uint32(entry.Extensions[at+len(seal):])
	if entry.Extensions = entry.Extensions[:at:at]; at == 0 {
		entry.Extensions = nil
	}
	if entry.Index != index || checksum(entry) != told {
		return errdef.New(errdef.ContentCorrupt, "entry %d is not what was stored: its checksum is wrong", index)
	}
	return nil
}

// checkedStable keeps a CRC-32C behind each value, over key and value: a term that flips down would let this node vote twice.
type checkedStable struct {
	raft.StableStore
	required bool
}

func newChecksum() hash.Hash32 { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }

func checksumOf(key, value []byte) uint32 {
	sum := newChecksum()
	sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(key))))
	sum.Write(key)
	sum.Write(value)
	return sum.Sum32()
}

// Set implements raft.StableStore, as do the methods below.
func (c checkedStable) Set(key, value []byte) error {
	sealed := append(append(make([]byte, 0, len(value)+sealBytes), value...), seal...)
	return c.StableStore.Set(key, binary.BigEndian.AppendUint32(sealed, checksumOf(key, value)))
}

// Get fails with reason CONTENT_CORRUPT for a value that is not what was set.
func (c checkedStable) Get(key []byte) ([]byte, error) {
	sealed, err := c.StableStore.Get(key)
	if err != nil {
		return nil, err
	}
	at := len(sealed) - sealBytes
	switch {
	case at >= 0 && bytes.HasPrefix(sealed[at:], []byte(seal)):
		if binary.BigEndian.Uint32(sealed[at+len(seal):]) != checksumOf(key, sealed[:at]) {
			return nil, errdef.New(errdef.ContentCorrupt, "the value of %q is not what was set: its checksum is wrong", key)
		}
		return sealed[:at], nil
	case c.required:
		return nil, errdef.New(errdef.ContentCorrupt, "the value of %q has lost its checksum", key)
	default:
		return sealed, nil
	}
}

// SetUint64 implements raft.StableStore.
func (c checkedStable) SetUint64(key []byte, value uint64) error {
	return c.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 implements raft.StableStore.
func (c checkedStable) GetUint64(key []byte) (uint64, error) {
	value, err := c.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, errdef.New(errdef.ContentCorrupt, "the value of %q has %d bytes", key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}
