package blobstore

import (
	"io/fs"

	"github.com/opencontainers/go-digest"
)

// Disk and File let tests of package blobstore_test replace the filesystem.
type (
	Disk = disk
	File = file
)

// OSDisk is the disk of the operating system.
func OSDisk() Disk { return osDisk{} }

// WithDisk returns options with another disk.
func (o Options) WithDisk(d Disk) Options {
	o.disk = d
	return o
}

// TrustBlindly is a planted bug: content is served from disk without verification.
func (s *Store) TrustBlindly(dgst digest.Digest) { s.setVerified(dgst, true) }

// Quarantine is what Open does when the file it has checked is corrupt.
func (s *Store) Quarantine(dgst digest.Digest, checked fs.FileInfo) (bool, error) {
	return s.quarantine(dgst, checked)
}
