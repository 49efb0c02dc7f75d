package blobstore

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Defaults of what ingests may leave half-way.
const (
	defaultPartialBytes = 32 << 30
	defaultPartialAge   = 24 * time.Hour
)

// partial is a file in ingest/ with the first bytes of content. Nothing of it is verified.
type partial struct {
	path     string
	size     int64 // bytes
	modified time.Time
}

// partialKey tells what a partial can be continued to. A source that lied must not spoil the content of others, so the
// origin is part of it.
type partialKey struct {
	digest digest.Digest
	origin string // shortened: see newPartialKey
}

// originLength is how many hexadecimal digits of an origin's digest are in the name of a file.
const originLength = 16

func newPartialKey(dgst digest.Digest, origin string) partialKey {
	sum := sha256.Sum256([]byte(origin))
	return partialKey{digest: dgst, origin: hex.EncodeToString(sum[:])[:originLength]}
}

// prefix returns how the names of the key's files begin; a random part follows.
func (k partialKey) prefix() string {
	return k.digest.Algorithm().String() + "-" + k.digest.Encoded() + "." + k.origin + "."
}

// partialKeyOf reads the name of a file.
func partialKeyOf(name string) (partialKey, bool) {
	parts := strings.Split(name, ".")
	if len(parts) != 3 || len(parts[1]) != originLength {
		return partialKey{}, false
	}
	dgst := digest.Digest(strings.Replace(parts[0], "-", ":", 1))
	return partialKey{digest: dgst, origin: parts[1]}, dgst.Validate() == nil
}

// partials are what ingests have left: at most one a key, each taken by at most one ingest that continues it.
type partials struct {
	bytes  int64
	age    time.Duration
	remove func(path string)

	// mu guards left.
	mu   sync.Mutex
	left map[partialKey]partial
}

func newPartials(options Options, remove func(string)) *partials {
	p := &partials{bytes: options.PartialBytes, age: options.PartialAge, remove: remove, left: map[partialKey]partial{}}
	if p.bytes == 0 {
		p.bytes = defaultPartialBytes
	}
	if p.age == 0 {
		p.age = defaultPartialAge
	}
	return p
}

// put keeps a partial; of two for one key the longer one.
func (p *partials) put(key partialKey, added partial) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if other, twice := p.left[key]; twice {
		if other.size > added.size {
			added, other = other, added
		}
		p.remove(other.path)
	}
	p.left[key] = added
}

func (p *partials) take(key partialKey) (partial, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken, ok := p.left[key]
	delete(p.left, key)
	return taken, ok
}

func (p *partials) size(key partialKey) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.left[key].size
}

// sweep removes partials that are too old, and the oldest ones until the rest have no more than so many bytes. It returns
// how many bytes it has removed.
func (p *partials) sweep(limit int64) (swept int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var total int64
	for _, one := range p.left {
		total += one.size
	}
	for len(p.left) > 0 {
		var key partialKey
		var oldest partial
		for other, one := range p.left {
			if oldest.path == "" || one.modified.Before(oldest.modified) {
				key, oldest = other, one
			}
		}
		if total-swept <= limit && time.Since(oldest.modified) <= p.age {
			break
		}
		delete(p.left, key)
		p.remove(oldest.path)
		swept += oldest.size
	}
	return swept
}

// keepPartial keeps a file that an earlier process has left in ingest/, if it can be continued.
func (s *Store) keepPartial(entry fs.DirEntry) bool {
	key, ok := partialKeyOf(entry.Name())
	if !ok {
		return false
	}
	info, err := entry.Info()
	if err != nil || !info.Mode().IsRegular() || info.Size() <= SmallBytes {
		return false
	}
	path := filepath.Join(s.dir, ingestDir, entry.Name())
	s.partials.put(key, partial{path: path, size: info.Size(), modified: info.ModTime()})
	return true
}

// Partial returns how many bytes Continue would find.
func (s *Store) Partial(dgst digest.Digest, origin string) int64 {
	return s.partials.size(newPartialKey(dgst, origin))
}

// DropPartial forgets what Continue would find.
func (s *Store) DropPartial(dgst digest.Digest, origin string) {
	if dropped, ok := s.partials.take(newPartialKey(dgst, origin)); ok {
		s.removeTemporary(dropped.path)
	}
}

// openPartial takes the partial of a key and opens it, under a new name: whoever still knows the old one has nothing to
// remove. It returns nil when there is none that could become content of the given size, negative for any.
func (s *Store) openPartial(key partialKey, size int64) *spool {
	found, ok := s.partials.take(key)
	if !ok {
		return nil
	}
	path := s.temporaryPath(&key)
	if err := s.disk.Rename(found.path, path); err != nil {
		s.logger.Warn("cannot continue partial content", "digest", key.digest, "error", err)
		s.removeTemporary(found.path)
		return nil
	}
	file, err := s.disk.Append(path)
	if err == nil {
		info, failed := os.Lstat(path)
		if failed == nil && info.Size() == found.size && (size < 0 || found.size <= size) {
			return &spool{file: file, path: path, left: found.size}
		}
		_ = file.Close() // nothing was written
	}
	s.removeTemporary(path)
	return nil
}
