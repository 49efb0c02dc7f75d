package devcluster_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ocistern/ocistern/internal/devcluster"
	"github.com/ocistern/ocistern/internal/errdef"
)

func TestFindWhatWasRemembered(t *testing.T) {
	dir := t.TempDir()
	pointer := devcluster.Pointer(filepath.Join(dir, "cache", "dev.json"))
	if _, err := pointer.Find(); !errors.Is(err, errdef.ErrNotFound) {
		t.Fatalf("before any cluster: %v, want NOT_FOUND", err)
	}
	want := devcluster.Endpoints{Nodes: []devcluster.Node{
		{ID: "n1", Registry: "http://127.0.0.1:5001", GRPC: "127.0.0.1:5011", Admin: "http://127.0.0.1:5021", PID: 7, Data: dir},
		{ID: "n2", GRPC: "127.0.0.1:5012"},
	}}
	first, second := filepath.Join(dir, "first.json"), filepath.Join(dir, "second.json")
	for _, path := range []string{first, second} {
		if err := errors.Join(devcluster.Write(path, want), pointer.Remember(path)); err != nil {
			t.Fatal(err)
		}
	}
	if err := pointer.Forget(first); err != nil {
		t.Fatal(err)
	}
	got, err := pointer.Find()
	if err != nil || !slices.Equal(got.Nodes, want.Nodes) {
		t.Fatalf("got %+v, %v: forgetting the first cluster must keep the second", got, err)
	}
	if addresses := got.GRPC(); !slices.Equal(addresses, []string{"127.0.0.1:5011", "127.0.0.1:5012"}) {
		t.Errorf("GRPC() = %v", addresses)
	}
	if err := pointer.Forget(second); err != nil {
		t.Fatal(err)
	}
	if _, err := pointer.Find(); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("after Forget: %v, want NOT_FOUND", err)
	}
	leftover, err := filepath.Glob(filepath.Join(dir, "*.json.*"))
	if err != nil || len(leftover) != 0 {
		t.Errorf("temporary files left: %v, %v", leftover, err)
	}
}

func TestDamagedFileIsNotAnAbsence(t *testing.T) {
	path := filepath.Join(t.TempDir(), devcluster.EndpointsFile)
	if err := os.WriteFile(path, []byte(`{"nodes":[`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := devcluster.Read(path); !errors.Is(err, errdef.ErrConfigInvalid) {
		t.Errorf("got %v, want CONFIG_INVALID", err)
	}
}
