package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ocistern/ocistern/e2e/figure"
)

const (
	tmpfsMagic = 0x01021994
	syncs      = 500
	syncBytes  = 512
)

// requireDisk refuses a directory in memory: fsync costs nothing there.
func requireDisk(dir string) error {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return fmt.Errorf("file system of %s: %w", dir, err)
	}
	if stat.Type == tmpfsMagic {
		return fmt.Errorf("%s is in memory, where fsync costs nothing: name a directory on a disk with -dir", dir)
	}
	return nil
}

// measureDisk prints what one small durable append costs on the disk that both systems write to.
func (b *bench) measureDisk() error {
	path := filepath.Join(b.dir, "fsync")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	took := make([]time.Duration, 0, syncs)
	for range syncs {
		began := time.Now()
		if _, err = file.Write(make([]byte, syncBytes)); err == nil {
			err = file.Sync()
		}
		if err != nil {
			break
		}
		took = append(took, time.Since(began))
	}
	if err := errors.Join(err, file.Close(), os.Remove(path)); err != nil {
		return fmt.Errorf("fsync in %s: %w", b.dir, err)
	}
	b.table.Print(figure.Figure{Name: "fsync-p50", Unit: figure.Seconds, Ours: figure.Percentile(took, 50).Seconds()})
	b.table.Print(figure.Figure{Name: "fsync-p99", Unit: figure.Seconds, Ours: figure.Percentile(took, 99).Seconds()})
	return nil
}
