package blobstore_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/ocistern/ocistern/blobstore"
)

// fragileDisk is a real directory on a disk with a write-back cache: cutPower takes back what was not fsynced. At step
// failAt it fails: once, with err, or for ever when killed, as for a process that is no more.
type fragileDisk struct {
	blobstore.Disk
	err    error
	killed bool

	mu      sync.Mutex // guards the fields below and those of the files
	failAt  int        // 0 for never
	steps   int
	open    int
	files   map[string]*fragileFile
	renames []rename
}

type rename struct{ from, to, replaced string }

type fragileFile struct {
	blobstore.File
	disk            *fragileDisk
	written, synced int64
}

var errKilled = errors.New("killed")

func newFragileDisk(err error, killed bool) *fragileDisk {
	return &fragileDisk{Disk: blobstore.OSDisk(), err: err, killed: killed, files: map[string]*fragileFile{}}
}

// failAfter lets the disk fail at the given step from now, the next one being 1; never for 0.
func (d *fragileDisk) failAfter(steps int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failAt = 0; steps > 0 {
		d.failAt = d.steps + steps
	}
}

// step tells whether the next step fails. The caller holds mu.
func (d *fragileDisk) step() error {
	d.steps++
	if d.steps == d.failAt || d.killed && d.failAt > 0 && d.steps > d.failAt {
		return d.err
	}
	return nil
}

func (d *fragileDisk) Create(path string) (blobstore.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return nil, err
	}
	created, err := d.Disk.Create(path)
	if err != nil {
		return nil, err
	}
	d.open++
	d.files[path] = &fragileFile{File: created, disk: d}
	return d.files[path], nil
}

func (d *fragileDisk) Append(path string) (blobstore.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return nil, err
	}
	opened, err := d.Disk.Append(path)
	if err != nil {
		return nil, err
	}
	d.open++
	before := d.files[path]
	d.files[path] = &fragileFile{File: opened, disk: d, written: before.written, synced: before.synced}
	return d.files[path], nil
}

func (d *fragileDisk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	done := rename{from: from, to: to}
	if _, err := os.Lstat(to); err == nil {
		done.replaced = from + ".replaced"
		if err := os.Link(to, done.replaced); err != nil {
			return err
		}
	}
	if err := d.Disk.Rename(from, to); err != nil {
		return err
	}
	d.renames = append(d.renames, done)
	d.files[to] = d.files[from]
	delete(d.files, from)
	return nil
}

func (d *fragileDisk) Remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	delete(d.files, path)
	return d.Disk.Remove(path)
}

func (d *fragileDisk) SyncDir(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	kept := d.renames[:0]
	for _, r := range d.renames {
		if filepath.Dir(r.to) != dir {
			kept = append(kept, r)
		} else if r.replaced != "" {
			if err := os.Remove(r.replaced); err != nil {
				return err
			}
		}
	}
	d.renames = kept
	return nil // the simulation needs no real one
}

func (f *fragileFile) Write(p []byte) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	err := f.disk.step()
	if err != nil {
		p = p[:len(p)/2] // a write that fails half-way
	}
	n, writeErr := f.File.Write(p)
	f.written += int64(n)
	return n, errors.Join(err, writeErr)
}

func (f *fragileFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.step(); err != nil {
		return err
	}
	f.synced = f.written
	return nil // the simulation needs no real one
}

func (f *fragileFile) Close() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.open--
	return f.File.Close()
}

// cutPower takes back what was not fsynced: bytes are gone, or read as zeros; names are gone when losesNames, else the
// names survive although the bytes do not, as on filesystems that journal metadata only.
func (d *fragileDisk) cutPower(t *testing.T, losesNames, zeros bool) {
	t.Helper()
	for path, file := range d.files {
		if file == nil || file.written == file.synced {
			continue
		}
		err := os.Truncate(path, file.synced)
		if err == nil && zeros {
			err = os.Truncate(path, file.written)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := len(d.renames) - 1; i >= 0 && losesNames; i-- {
		r := d.renames[i]
		err := os.Rename(r.to, r.from)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was renamed once more, durably
		}
		if err == nil && r.replaced != "" {
			err = os.Rename(r.replaced, r.to)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A disk that says a sync was done and did none: the planted bugs.
type (
	noFileSync struct{ blobstore.Disk }
	noDirSync  struct{ blobstore.Disk }
	unsynced   struct{ blobstore.File }
)

func (d noFileSync) Create(path string) (blobstore.File, error) {
	created, err := d.Disk.Create(path)
	return unsynced{created}, err
}

func (d noFileSync) Append(path string) (blobstore.File, error) {
	opened, err := d.Disk.Append(path)
	return unsynced{opened}, err
}

func (unsynced) Sync() error { return nil }

func (noDirSync) SyncDir(string) error { return nil }

// The simulation itself: what is not fsynced is lost, what is fsynced is kept.
func TestFragileDiskLosesWhatWasNotSynced(t *testing.T) {
	dir := t.TempDir()
	disk := newFragileDisk(nil, false)
	write := func(name string, sync bool) {
		created, err := disk.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(created, "content"); err != nil {
			t.Fatal(err)
		}
		if sync {
			if err := created.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		if err := created.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write("synced", true)
	write("not", false)
	write("moved", true)
	if err := disk.Rename(filepath.Join(dir, "moved"), filepath.Join(dir, "new")); err != nil {
		t.Fatal(err)
	}
	disk.cutPower(t, true, false)
	for name, want := range map[string]string{"synced": "content", "not": "", "moved": "content"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	full := newFragileDisk(syscall.ENOSPC, false)
	full.failAfter(1)
	if _, err := full.Create(filepath.Join(dir, "full")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}
