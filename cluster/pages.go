package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
	"os"

	"github.com/ocistern/ocistern/internal/durable"
)

// The layout of a bbolt file, in the byte order of the machine. Page: id (8 bytes), flags (2), number of elements (2), pages
// that it goes on for (4), elements. Element of a branch: position of the key from here (4), its size (4), page (8). Of a
// leaf: flags (4), position (4), sizes of key and value (4 each). Value of a bucket: its page (8), a counter (8), and the page
// itself where the first is 0. Meta, on pages 0 and 1: magic, version, page size and flags (4 each), bucket of the root (16),
// freelist (8), pages in use (8), transaction (8), and FNV-1a of the 56 bytes before.
const (
	pageHeader   = 16
	elementBytes = 16
	branchFlag   = 1
	leafFlag     = 2
	bucketFlag   = 1
	metaBytes    = 64
	metaMagic    = 0xED0CDAED
)

// pages reads a bbolt file without bbolt, and refuses all over which bbolt would panic. visit is called with each key, in
// order, and the name of its bucket.
type pages struct {
	file  *os.File
	size  int64  // of a page
	used  uint64 // pages
	root  uint64
	seen  []bool // by page
	visit func(bucket string, key []byte) error
}

// native is the byte order of the machine.
func native() binary.ByteOrder { return binary.NativeEndian }

// readPages walks the whole file. Errors are damage, except those of reading at all.
func readPages(path string, visit func(bucket string, key []byte) error) error {
	file, err := os.Open(path)
	if err != nil {
		return durable.Wrap(err, "cannot read the raft log")
	}
	defer file.Close()
	p := &pages{file: file, visit: visit}
	if err := p.readMeta(); err != nil {
		return err
	}
	p.seen = make([]bool, p.used)
	return p.tree(p.root, "", nil, nil)
}

// readMeta demands that both meta pages are whole. Each commit writes one of them, within one sector; bbolt would be content
// with the other one, which is the state before.
func (p *pages) readMeta() error {
	info, err := p.file.Stat()
	if err != nil {
		return durable.Wrap(err, "cannot read the raft log")
	}
	newest := uint64(0)
	for number := range int64(2) {
		meta := make([]byte, metaBytes)
		if err := p.read(meta, number*p.size+pageHeader); err != nil {
			return err
		}
		sum := fnv.New64a()
		sum.Write(meta[:metaBytes-8])
		size := int64(native().Uint32(meta[8:]))
		if native().Uint32(meta) != metaMagic || native().Uint64(meta[56:]) != sum.Sum64() || size == 0 {
			return damaged("log", nil, "meta page %d of the raft log is damaged", number)
		}
		p.size = size
		if transaction := native().Uint64(meta[48:]); number == 0 || transaction > newest {
			newest, p.root, p.used = transaction, native().Uint64(meta[16:]), native().Uint64(meta[40:])
		}
	}
	if p.used > uint64(info.Size()/p.size) {
		return damaged("log", nil, "the raft log is cut off: %d of %d pages are left", info.Size()/p.size, p.used)
	}
	return nil
}

func (p *pages) read(into []byte, at int64) error {
	_, err := p.file.ReadAt(into, at)
	if errors.Is(err, io.EOF) {
		return damaged("log", err, "the raft log is cut off")
	}
	if err != nil {
		return durable.Wrap(err, "cannot read the raft log")
	}
	return nil
}

// tree walks the page with a number, and those below it, whose keys are not below least, and below most where that is set.
func (p *pages) tree(number uint64, bucket string, least, most []byte) error {
	if number < 2 || number >= p.used {
		return damaged("log", nil, "the raft log refers to page %d of %d", number, p.used)
	}
	header := make([]byte, pageHeader)
	if err := p.read(header, int64(number)*p.size); err != nil {
		return err
	}
	more := uint64(native().Uint32(header[12:]))
	if native().Uint64(header) != number || number+more >= p.used {
		return damaged("log", nil, "page %d of the raft log is damaged", number)
	}
	for at := number; at <= number+more; at++ {
		if p.seen[at] {
			return damaged("log", nil, "page %d of the raft log is used twice", at)
		}
		p.seen[at] = true
	}
	page := make([]byte, int64(more+1)*p.size)
	if err := p.read(page, int64(number)*p.size); err != nil {
		return err
	}
	return p.page(page, bucket, least, most)
}

func (p *pages) page(page []byte, bucket string, least, most []byte) error {
	if len(page) < pageHeader {
		return damaged("log", nil, "a page of the raft log is cut off")
	}
	flags, count := native().Uint16(page[8:]), int(native().Uint16(page[10:]))
	empty := count == 0 && (flags == branchFlag || least != nil) // only the root of a bucket may be
	if flags != branchFlag && flags != leafFlag || empty ||
		pageHeader+count*elementBytes > len(page) {
		return damaged("log", nil, "a page of the raft log has flags %#x and %d elements", flags, count)
	}
	branch := flags == branchFlag
	elements := make([]element, count)
	from := pageHeader + count*elementBytes // keys and values lie one behind the other: none is left out
	for i := range elements {
		var ok bool
		if elements[i], ok = elementOf(page, i, branch, from); !ok {
			return damaged("log", nil, "element %d of a page of the raft log is damaged", i)
		}
		from += len(elements[i].key) + len(elements[i].value)
		first, key := i == 0, elements[i].key
		if first && bytes.Compare(key, least) < 0 || !first && bytes.Compare(key, elements[i-1].key) <= 0 ||
			most != nil && bytes.Compare(key, most) >= 0 {
			return damaged("log", nil, "the keys of the raft log are out of order")
		}
	}
	for i, e := range elements {
		below := most
		if i+1 < count {
			below = elements[i+1].key
		}
		var err error
		if branch {
			err = p.tree(e.page, bucket, e.key, below)
		} else {
			err = p.leaf(e, bucket)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type element struct {
	flags      uint32 // of a leaf
	page       uint64 // of a branch
	key, value []byte
}

// elementOf returns an element of a page whose key begins at from.
func elementOf(page []byte, i int, branch bool, from int) (e element, ok bool) {
	at := pageHeader + i*elementBytes
	word := func(n int) uint64 { return uint64(native().Uint32(page[at+4*n:])) }
	var position, keyBytes, valueBytes uint64
	if branch {
		position, keyBytes, e.page = word(0), word(1), native().Uint64(page[at+8:])
	} else {
		e.flags, position, keyBytes, valueBytes = uint32(word(0)), word(1), word(2), word(3)
	}
	if uint64(at)+position != uint64(from) || keyBytes == 0 || keyBytes+valueBytes > uint64(len(page)-from) {
		return element{}, false
	}
	e.key, e.value = page[from:][:keyBytes], page[from+int(keyBytes):][:valueBytes]
	return e, true
}

// leaf visits a key, or walks the bucket of a name. There are no buckets within buckets.
func (p *pages) leaf(e element, bucket string) error {
	switch {
	case bucket != "" && e.flags == 0:
		return p.visit(bucket, e.key)
	case bucket == "" && e.flags == bucketFlag && len(e.value) >= 16:
		if err := p.visit(string(e.key), nil); err != nil {
			return err
		}
		if root := native().Uint64(e.value); root != 0 {
			return p.tree(root, string(e.key), nil, nil)
		}
		if inline := e.value[16:]; len(inline) >= pageHeader && native().Uint16(inline[8:]) == leafFlag {
			return p.page(inline, string(e.key), nil, nil)
		}
	}
	return damaged("log", nil, "key %q of the raft log is damaged", e.key)
}
