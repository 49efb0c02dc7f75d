//go:build !linux

package durable

import "os"

// allocate gives a file blocks of its own.
func allocate(file *os.File, size int64) error { return fill(file, size) }
