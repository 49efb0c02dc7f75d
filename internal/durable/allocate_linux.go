package durable

import (
	"errors"
	"os"
	"syscall"
)

// allocate gives a file blocks of its own.
func allocate(file *os.File, size int64) error {
	for {
		err := syscall.Fallocate(int(file.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
			return fill(file, size)
		default:
			return err
		}
	}
}
