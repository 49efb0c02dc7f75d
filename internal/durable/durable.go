// Package durable writes files so that they survive power loss: the bytes are fsynced before a name points at them, and
// the directory is fsynced before the write counts as done. It also gives failures of the disk their typed errors.
//
// It is not a store and holds no state. Packages blobstore and cluster use it for what must not be lost.
package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/ocistern/ocistern/internal/errdef"
)

// WriteFile replaces the file at path by data, as WriteFrom does.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	return WriteFrom(path, mode, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// WriteFrom replaces the file at path by what write writes, with the given permissions, atomically: after a crash at any
// instant there is either the old content or the new, whole. When it returns nil, the new content is durable; when write
// fails, the file stays as it was. Errors of the disk have reason STORAGE_FULL or STORAGE_FAILED, those of write their own.
// Concurrent calls for one path are safe; one of them wins.
func WriteFrom(path string, mode fs.FileMode, write func(io.Writer) error) error {
	return writeFrom(path, mode, func(file *os.File) error { return write(file) })
}

func writeFrom(path string, mode fs.FileMode, write func(*os.File) error) error {
	temporary, err := writeTemporary(path, mode, write)
	if err == nil {
		err = Rename(temporary, path)
	}
	if err != nil && temporary != "" {
		err = errors.Join(err, ignoreNotExist(os.Remove(temporary)))
	}
	if err != nil {
		return Wrap(err, "cannot write %s", path)
	}
	return nil
}

// writeTemporary writes a new file beside path and fsyncs it. It returns the file's name even on an error that came after
// the file was made.
func writeTemporary(path string, mode fs.FileMode, write func(*os.File) error) (name string, err error) {
	file, err := os.CreateTemp(filepath.Dir(path), temporaryPattern(path))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := file.Chmod(mode); err != nil {
		return file.Name(), err
	}
	if err := write(file); err != nil {
		return file.Name(), err
	}
	return file.Name(), file.Sync()
}

// temporaryPattern is what the names of the new files of a path have in common.
func temporaryPattern(path string) string { return "." + filepath.Base(path) + ".*" }

// Rename renames a file and fsyncs the directory of its new name. The content must have been fsynced before. The old
// name may come back after power loss.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return Wrap(err, "cannot rename %s", from)
	}
	return SyncDir(filepath.Dir(to))
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	opened, err := os.Open(dir)
	if err != nil {
		return Wrap(err, "cannot open directory %s", dir)
	}
	if err := errors.Join(opened.Sync(), opened.Close()); err != nil {
		return Wrap(err, "cannot fsync directory %s", dir)
	}
	return nil
}

// MakeDir makes a directory and the parents it lacks, and makes their names durable. An existing directory is fine.
func MakeDir(dir string, mode fs.FileMode) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := MakeDir(parent, mode); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return Wrap(err, "cannot make directory %s", dir)
	}
	return SyncDir(parent)
}

// Wrap gives an error of the filesystem its reason: STORAGE_FULL when space, inodes or a quota ran out, else
// STORAGE_FAILED. An error that has a reason already keeps it.
func Wrap(err error, format string, args ...any) error {
	var typed *errdef.Error
	switch {
	case errors.As(err, &typed):
		return errdef.Wrap(typed.Reason, err, format, args...)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return errdef.Wrap(errdef.StorageFull, err, format, args...).WithRemedy("free space or enlarge the volume")
	case errors.Is(err, fs.ErrPermission):
		return errdef.Wrap(errdef.StorageFailed, err, format, args...).WithRemedy("let the process own the directory")
	default:
		return errdef.Wrap(errdef.StorageFailed, err, format, args...)
	}
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
