package blobstore

import (
	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// room fails with reason STORAGE_FULL when so many more bytes would leave less of the disk free than is left to others.
func (s *Store) room(bytes int64) error {
	if s.floor == 0 {
		return nil
	}
	free, err := durable.Free(s.dir)
	if err == nil && free-bytes < s.floor && s.partials.sweep(0) > 0 { // they give way to anything
		free, err = durable.Free(s.dir)
	}
	if err != nil {
		return err
	}
	if free-bytes < s.floor {
		return errdef.New(errdef.StorageFull, "content of %d bytes is not stored: %d are free, and %d must stay so",
			bytes, free, s.floor).WithRemedy("free space or enlarge the volume")
	}
	return nil
}

// Space returns how many bytes of the disk are free, and whether that is too little to store anything.
func (s *Store) Space() (free int64, full bool, err error) {
	free, err = durable.Free(s.dir)
	return free, err == nil && free < s.floor, err
}
