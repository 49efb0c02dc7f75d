// Package blobstore keeps content by digest on the disk of one node, in a directory that is a valid OCI image layout
// (image-spec, "OCI Image Layout Specification"), with a memory tier for small content.
//
// Content is verified while it streams in, becomes readable as soon as it is verified, and survives power loss once
// Persist has returned. The package knows digests and bytes only: which repositories may read them, and which other
// nodes hold them, is the catalog's business. Packages fill, registry and rpc call it; blobstore/peer moves content
// between stores.
package blobstore

import (
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"

	"github.com/ocistern/ocistern/internal/errdef"
)

// SmallBytes bounds small content: up to this size it is buffered in memory on its way in, and goes through the memory
// tier. Manifests, signatures and attestations are small, layers are not.
const SmallBytes = 256 << 10

// Options configures a Store.
type Options struct {
	// MemoryBytes bounds the memory tier, not counting content that is not durable yet. Zero turns the tier off.
	MemoryBytes int64
	// FreeBytes of disk are left to others: where content would take from them, large content goes whose last use is the longest
	// ago. What there is no room for all the same is not stored, with reason STORAGE_FULL; whoever reads along with small content
	// gets it even so. Zero turns both off.
	FreeBytes int64
	// PartialBytes and PartialAge bound what ingests may leave half-way, to be continued. Zero means 32 GiB and 24 hours.
	PartialBytes int64
	PartialAge   time.Duration
	// Logger is told of content that was quarantined and of temporary files that could not be removed.
	Logger *slog.Logger
	// Lost, when set, is called after content was moved away because it is corrupt, or removed to make room. It must not block.
	Lost func(digest.Digest)

	disk disk // the operating system's, unless a test replaces it
}

// Store is the content of one directory. It is safe for concurrent use.
type Store struct {
	dir      string
	disk     disk
	memory   *memory
	logger   *slog.Logger
	lost     func(digest.Digest)
	lock     *os.File
	floor    int64
	partials *partials

	// shedding serializes what looks at the free space and makes some. It is taken before placing.
	shedding sync.Mutex

	// checks holds one flight per digest that is being verified on disk.
	checks singleflight.Group

	// placing serializes what moves files into and out of blobs/, and guards the fields below.
	placing sync.Mutex
	closed  bool
	usage   Usage

	// checking guards verified: large content that was verified, or ingested, since the start, and when it was
	// last opened, in Unix nanoseconds. Small content has no need of it: it is verified whenever it enters the memory tier.
	checking sync.RWMutex
	verified map[digest.Digest]*atomic.Int64
}

// Open opens the store in dir and makes the directory if there is none. Temporary files of an earlier process are
// removed, unless Continue can use them. One process may have a directory open: another gets DIRECTORY_IN_USE. A directory
// that is an image layout of something else is refused with CONFIG_INVALID. The caller closes the store.
//
// It lists the directory once, to count what it holds: some seconds for a million blobs.
func Open(dir string, options Options) (*Store, error) {
	s := &Store{
		dir: dir, disk: options.disk, memory: newMemory(options.MemoryBytes), logger: options.Logger,
		lost: options.Lost, verified: map[digest.Digest]*atomic.Int64{}, floor: options.FreeBytes,
	}
	if s.disk == nil {
		s.disk = osDisk{}
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.lost == nil {
		s.lost = func(digest.Digest) {}
	}
	s.partials = newPartials(options, s.removeTemporary)
	var err error
	if s.lock, err = lockDirectory(dir); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		_ = s.lock.Close() // the reason it could not be opened says more
		return nil, err
	}
	return s, nil
}

// Close gives the directory free. Ingests that are not persisted by then fail; open content stays readable.
func (s *Store) Close() error {
	s.placing.Lock()
	defer s.placing.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if err := s.lock.Close(); err != nil {
		return errdef.Wrap(errdef.StorageFailed, err, "cannot unlock %s", s.dir)
	}
	return nil
}
