package durable

import "syscall"

// Free returns how many bytes this process may still write to the filesystem of an existing file or directory.
func Free(path string) (int64, error) {
	var found syscall.Statfs_t
	if err := syscall.Statfs(path, &found); err != nil {
		return 0, Wrap(err, "cannot tell the free space at %s", path)
	}
	return int64(found.Bavail) * int64(found.Bsize), nil //nolint:unconvert // Bsize is narrower on other systems
}
