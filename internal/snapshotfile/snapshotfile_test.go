package snapshotfile_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/snapshotfile"
)

func golden(t *testing.T) []byte {
	t.Helper()
	whole, err := os.ReadFile(filepath.Join("..", "..", "fsm", "testdata", "snapshot.v1.pb"))
	if err != nil {
		t.Fatal(err)
	}
	return whole
}

func sending(content []byte, failure error) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(content)
		return errors.Join(err, failure)
	}
}

// A file is replaced only by a complete snapshot, whatever goes wrong on the way.
func TestSave(t *testing.T) {
	whole := golden(t)
	lost := errdef.New(errdef.NoQuorum, "gone").WithRemedy("wait")
	for _, c := range []struct {
		name string
		save func(io.Writer) error
		want error
	}{
		{"whole", sending(whole, nil), nil},
		{"cut off", sending(whole[:len(whole)-1], nil), errdef.ErrSnapshotInvalid},
		{"goes on", sending(append(bytes.Clone(whole), 0), nil), errdef.ErrSnapshotInvalid},
		{"nothing", sending(nil, nil), errdef.ErrSnapshotInvalid},
		{"broken", sending(whole[:9], lost), errdef.ErrNoQuorum},
	} {
		path := filepath.Join(t.TempDir(), "saved")
		if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
			t.Fatal(err)
		}
		told := int64(0)
		report, err := snapshotfile.Save(path, io.Discard, c.save, func(bytes int64) { told = bytes })
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) || report.Complete != (c.want == nil) {
			t.Errorf("%s: %v, %+v", c.name, err, report)
		}
		got, readErr := os.ReadFile(path)
		switch {
		case readErr != nil:
			t.Error(readErr)
		case c.want == nil && (!bytes.Equal(got, whole) || told != int64(len(whole)) || report.Index != 5):
			t.Errorf("%s: %d bytes saved, %d told, %+v", c.name, len(got), told, report)
		case c.want != nil && string(got) != "before":
			t.Errorf("%s: the file was replaced by %d bytes", c.name, len(got))
		}
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
			t.Errorf("%s: left behind %v", c.name, left)
		}
	}
}

func TestSaveToStdout(t *testing.T) {
	var out bytes.Buffer
	report, err := snapshotfile.Save(snapshotfile.Stdout, &out, sending(golden(t), nil), func(int64) {})
	if err != nil || !report.Complete || !bytes.Equal(out.Bytes(), golden(t)) {
		t.Errorf("%v, %+v, %d bytes", err, report, out.Len())
	}
}

func TestInspectWithoutFile(t *testing.T) {
	if _, err := snapshotfile.Inspect(filepath.Join(t.TempDir(), "none")); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}
