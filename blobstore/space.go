package blobstore

import (
	"cmp"
	"slices"
	"time"

	"github.com/ocistern/ocistern/internal/durable"
	"github.com/ocistern/ocistern/internal/errdef"
)

// stride is how many bytes of content on their way in may be written before the free space is looked at again.
const stride = 1 << 20

// room makes room for so many more bytes: it sheds content when they would leave less of the disk free than is left to
// others. It fails with reason STORAGE_FULL, and sheds nothing, where that would not be enough.
func (s *Store) room(bytes int64) error {
	s.shedding.Lock()
	defer s.shedding.Unlock()
	free, lacking, err := s.lacking(bytes)
	if err == nil && lacking > 0 && lacking <= s.large() {
		if err = s.shed(lacking); err == nil {
			free, lacking, err = s.lacking(bytes)
		}
	}
	if err == nil && lacking > 0 {
		err = errdef.New(errdef.StorageFull, "content of %d bytes is not stored: %d are free, and %d must stay so",
			bytes, free, s.floor).WithRemedy("free space or enlarge the volume")
	}
	return err
}

// MakeRoom sheds content while less of the disk is free than is left to others, because they have filled it: the large content
// whose last use is the longest ago. It is for calling now and then.
func (s *Store) MakeRoom() error {
	s.shedding.Lock()
	defer s.shedding.Unlock()
	_, lacking, err := s.lacking(0)
	if err == nil && lacking > 0 && s.large() > 0 {
		err = s.shed(lacking)
	}
	return err
}

// lacking returns how many bytes are free, and how many of those are missing that must be before so many may be written, after
// partials have given way.
func (s *Store) lacking(bytes int64) (free, missing int64, err error) {
	if s.floor == 0 {
		return 0, 0, nil
	}
	free, err = durable.Free(s.dir)
	if err == nil && free-bytes < s.floor && s.partials.sweep(0) > 0 {
		free, err = durable.Free(s.dir)
	}
	return free, s.floor + bytes - free, err
}

func (s *Store) large() int64 {
	s.placing.Lock()
	defer s.placing.Unlock()
	return s.usage.LargeBytes
}

// shed removes at least so many bytes of large content, or all there is, that of which the last use is the longest ago first.
// Small content stays: it is what verifiers need most, every node keeps it, and it would be copied back. The caller holds
// shedding.
func (s *Store) shed(bytes int64) error {
	type use struct {
		Blob
		last time.Time
	}
	var found []use
	for blob, err := range s.All() {
		if err != nil {
			return err
		}
		if blob.Size > SmallBytes {
			found = append(found, use{blob, s.lastUse(blob)})
		}
	}
	slices.SortFunc(found, func(a, b use) int { return cmp.Or(a.last.Compare(b.last), cmp.Compare(a.Digest, b.Digest)) })
	removed, left := 0, bytes
	for ; removed < len(found) && left > 0; removed++ {
		if err := s.Remove(found[removed].Digest); err != nil {
			return err
		}
		s.lost(found[removed].Digest)
		left -= found[removed].Size
	}
	s.logger.Warn("the disk is full: content was removed to make room", "blobs", removed, "bytes", bytes-left)
	return nil
}

// lastUse returns when content was last opened, or taken in where it was not opened since the start.
func (s *Store) lastUse(blob Blob) time.Time {
	s.checking.RLock()
	defer s.checking.RUnlock()
	if used, ok := s.verified[blob.Digest]; ok {
		return time.Unix(0, used.Load())
	}
	return blob.written
}

// Space returns how many bytes of the disk are free, and whether that is too little to store anything.
func (s *Store) Space() (free int64, full bool, err error) {
	free, err = durable.Free(s.dir)
	return free, err == nil && free < s.floor, err
}
