package blobstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// The names in a store's directory beside those of the image layout.
const (
	ingestDir     = "ingest"     // temporary files; only partials in it outlive the process
	quarantineDir = "quarantine" // corrupt content, for the operator to look at and delete
	lockFile      = "lock"
)

// algorithms returns the digest algorithms that have a directory.
func algorithms() []digest.Algorithm { return []digest.Algorithm{digest.SHA256, digest.SHA512} }

// blobsOf returns the directory of one algorithm.
func (s *Store) blobsOf(algorithm digest.Algorithm) string {
	return filepath.Join(s.dir, ocispec.ImageBlobsDir, algorithm.String())
}

// path returns where content lies, or would. The digest must be valid.
func (s *Store) path(dgst digest.Digest) string {
	return filepath.Join(s.blobsOf(dgst.Algorithm()), dgst.Encoded())
}

// lockDirectory makes the directory if need be and takes its lock, which lasts until the file is closed or the process
// ends, however it ends.
func lockDirectory(dir string) (*os.File, error) {
	if err := durable.MakeDir(dir, dirMode); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, durable.Wrap(err, "cannot lock %s", dir)
	}
	if err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		if err = lock.Truncate(0); err == nil {
			_, err = fmt.Fprintf(lock, "%d\n", os.Getpid())
		}
	}
	if err == nil {
		return lock, nil
	}
	defer lock.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		owner, _ := io.ReadAll(io.LimitReader(lock, 32)) // only names the process in the message
		return nil, errdef.New(errdef.DirectoryInUse, "directory %s is in use by process %s", dir, strings.TrimSpace(string(owner))).
			WithRemedy("stop that process, or give this one a directory of its own")
	}
	return nil, durable.Wrap(err, "cannot lock %s", dir)
}

// prepare makes the directory a valid image layout, removes what an earlier process left half-written, and counts what
// is there. The names it finds in blobs/ may have been renamed but not yet fsynced when that process died: it makes
// them durable, so that what the store shows never disappears again.
func (s *Store) prepare() error {
	for _, name := range []string{ocispec.ImageBlobsDir, ingestDir, quarantineDir} {
		if err := durable.MakeDir(filepath.Join(s.dir, name), dirMode); err != nil {
			return err
		}
	}
	layout := ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{},
	}
	err := errors.Join(s.ensureFile(ocispec.ImageLayoutFile, layout), s.ensureFile(ocispec.ImageIndexFile, index), s.cleanIngest())
	if err != nil {
		return err
	}
	for _, algorithm := range algorithms() {
		if err := durable.MakeDir(s.blobsOf(algorithm), dirMode); err != nil {
			return err
		}
		if err := s.disk.SyncDir(s.blobsOf(algorithm)); err != nil {
			return err
		}
	}
	for blob, err := range s.All() {
		if err != nil {
			return err
		}
		s.usage.count(blob.Size, 1)
	}
	return nil
}

// ensureFile writes one of the two files that make a directory an image layout. One that is there must say the same:
// otherwise something else keeps its content here, which this store would take for its own.
func (s *Store) ensureFile(name string, want any) error {
	text, err := json.Marshal(want)
	if err != nil {
		return errdef.Wrap(errdef.Internal, err, "cannot encode %s", name)
	}
	path := filepath.Join(s.dir, name)
	found, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return durable.WriteFile(path, text, fileMode)
	case err != nil:
		return durable.Wrap(err, "cannot read %s", path)
	case strings.TrimSpace(string(found)) != string(text):
		return errdef.New(errdef.ConfigInvalid, "%s is not as this store writes it: the directory belongs to something else", path).
			WithRemedy("give the store a directory of its own, or put back %s", text)
	}
	return nil
}

func (s *Store) cleanIngest() error {
	dir := filepath.Join(s.dir, ingestDir)
	left, err := os.ReadDir(dir)
	if err != nil {
		return durable.Wrap(err, "cannot read %s", dir)
	}
	for _, entry := range left {
		if s.keepPartial(entry) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			return durable.Wrap(err, "cannot remove a temporary file")
		}
	}
	s.partials.sweep(s.partials.bytes)
	return nil
}

// listBatch is how many names are read from a directory at a time.
const listBatch = 1024

// list yields the content of one algorithm, in no order. Names that are no digest are not content and are passed over.
func (s *Store) list(algorithm digest.Algorithm) iter.Seq2[Blob, error] {
	return func(yield func(Blob, error) bool) {
		dir, err := os.Open(s.blobsOf(algorithm))
		if err != nil {
			yield(Blob{}, durable.Wrap(err, "cannot list blobs"))
			return
		}
		defer dir.Close()
		for {
			batch, err := dir.ReadDir(listBatch)
			for _, entry := range batch {
				blob, ok := blobOf(algorithm, entry)
				if ok && !yield(blob, nil) {
					return
				}
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(Blob{}, durable.Wrap(err, "cannot list blobs"))
				return
			}
		}
	}
}

func blobOf(algorithm digest.Algorithm, entry fs.DirEntry) (Blob, bool) {
	dgst := digest.NewDigestFromEncoded(algorithm, entry.Name())
	if dgst.Validate() != nil {
		return Blob{}, false
	}
	info, err := entry.Info()
	if err != nil || !info.Mode().IsRegular() { // it was removed meanwhile, or is no content
		return Blob{}, false
	}
	return Blob{Digest: dgst, Size: info.Size(), written: info.ModTime()}, true
}
