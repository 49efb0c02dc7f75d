// Package devcluster is the note that `ocistern dev` leaves for whoever wants to reach its nodes: endpoints.json in the
// data directory of the cluster (plan, section 10), and a pointer file in the user's cache directory that names the
// endpoints.json of the cluster started last.
//
// It starts nothing and dials nobody. `ocistern dev` writes, the other subcommands and the end-to-end tests read.
package devcluster

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ocistern/ocistern/internal/errdef"
)

// EndpointsFile is the name of the endpoints file in the data directory of a dev cluster.
const EndpointsFile = "endpoints.json"

// Endpoints is the content of endpoints.json.
type Endpoints struct {
	Nodes []Node `json:"nodes"`
}

// Node tells how to reach one node of a dev cluster.
type Node struct {
	// ID is the node's name, n1, n2, ...
	ID string `json:"id"`
	// Registry is the URL of the /v2/ API.
	Registry string `json:"registry"`
	// GRPC is the host:port of the client API.
	GRPC string `json:"grpc"`
	// Admin is the URL of health and metrics.
	Admin string `json:"admin"`
	// PID is the process of the node when the file was written.
	PID int `json:"pid"`
	// Data is the node's data directory, an absolute path.
	Data string `json:"data"`
}

// GRPC returns the client addresses of all nodes, in order.
func (e Endpoints) GRPC() []string {
	addresses := make([]string, 0, len(e.Nodes))
	for _, node := range e.Nodes {
		addresses = append(addresses, node.GRPC)
	}
	return addresses
}

// Write replaces the endpoints file at path in one step, so that a reader sees the old or the new one.
func Write(path string, endpoints Endpoints) error {
	return writeJSON(path, endpoints)
}

// Read reads an endpoints file. It returns NOT_FOUND where there is none and CONFIG_INVALID where it cannot be read.
func Read(path string) (Endpoints, error) {
	var endpoints Endpoints
	return endpoints, readJSON(path, &endpoints)
}

// Pointer is the path of a pointer file: the one fixed place from which a dev cluster can be found.
type Pointer string

// DefaultPointer returns the pointer of this user, ocistern/dev.json in the user's cache directory. It fails where the
// environment names no such directory.
func DefaultPointer() (Pointer, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", errdef.Wrap(errdef.ConfigInvalid, err, "no cache directory for this user").
			WithRemedy("set HOME or XDG_CACHE_HOME")
	}
	return Pointer(filepath.Join(dir, "ocistern", "dev.json")), nil
}

type pointee struct {
	// Endpoints is the absolute path of an endpoints file.
	Endpoints string `json:"endpoints"`
}

// Remember makes p point at an endpoints file.
func (p Pointer) Remember(endpointsPath string) error {
	absolute, err := filepath.Abs(endpointsPath)
	if err != nil {
		return errdef.Wrap(errdef.Internal, err, "cannot locate %s", endpointsPath)
	}
	if err := os.MkdirAll(filepath.Dir(string(p)), 0o700); err != nil {
		return errdef.Wrap(errdef.Internal, err, "cannot remember the dev cluster")
	}
	return writeJSON(string(p), pointee{Endpoints: absolute})
}

// Forget removes p, unless it points at an endpoints file other than this one: another cluster was started since.
func (p Pointer) Forget(endpointsPath string) error {
	absolute, err := filepath.Abs(endpointsPath)
	if err != nil {
		return errdef.Wrap(errdef.Internal, err, "cannot locate %s", endpointsPath)
	}
	var to pointee
	if readErr := readJSON(string(p), &to); readErr != nil || to.Endpoints != absolute {
		return nil // nothing of ours to remove
	}
	if err := os.Remove(string(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errdef.Wrap(errdef.Internal, err, "cannot forget the dev cluster")
	}
	return nil
}

// Find reads the endpoints of the dev cluster that p points at. It returns NOT_FOUND where none was started.
func (p Pointer) Find() (Endpoints, error) {
	var to pointee
	if err := readJSON(string(p), &to); err != nil {
		return Endpoints{}, err
	}
	return Read(to.Endpoints)
}
